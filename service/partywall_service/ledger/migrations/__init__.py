"""Migrations: the only thing that ever changes the shape of the database.

Every change expands first and contracts in a later release, so a sidecar of the version before
keeps working while, and after, a newer one migrates. There is no way down: undoing a migration
would throw away what tenants were promised, and a restored backup does it honestly.
"""

import threading

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.ext.asyncio import AsyncEngine
from sqlalchemy.pool import NullPool

from partywall_service.ledger.engine import connection_parameters, create_ledger_engine
from partywall_service.ledger.errors import translated

NOT_MIGRATED = "the database is not migrated to this version: run `partywall db upgrade` first"
"""What to tell whoever starts something on a database that is behind."""

_LOCK = int.from_bytes(b"partywal")  # eight bytes, so nobody else's advisory lock by chance
_ALEMBIC = threading.Lock()  # it keeps its environment in module globals: one thread at a time


def upgrade(database_url: str) -> None:
    """Brings the database to this version's shape; safe when several do it at once.

    Runs in one transaction: it is done whole or not at all. The database's user becomes the owner
    of the tables; a sidecar connects as that user or as a member of it. A database that a newer
    version has already migrated is left as it is.

    Args:
        database_url: as for `connection_parameters`; its `search_path` says which schema.

    Raises:
        LedgerUnavailable: PostgreSQL does not answer, or its user may not do this; the message
            says what an administrator must do.
        ValueError: the URL cannot be read.
    """
    parameters = connection_parameters(database_url, application="partywall migrations")
    engine = create_engine(
        "postgresql+psycopg://", creator=lambda: psycopg.connect(**parameters), poolclass=NullPool
    )
    with _ALEMBIC, translated(), engine.begin() as connection:
        # Whoever comes second waits here, and then finds nothing left to do.
        connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
        if not _newer(connection):
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")


async def at_head(engine: AsyncEngine) -> bool:
    """Whether the database has this version's shape, or a newer version's, which serves it too.

    Raises:
        LedgerUnavailable: PostgreSQL does not answer.
    """
    with translated():
        async with engine.connect() as connection:
            return await connection.run_sync(
                lambda sync: _revision(sync) == _scripts().get_current_head() or _newer(sync)
            )


async def database_at_head(database_url: str) -> bool:
    """As `at_head`, of a database that nothing is connected to yet.

    Raises:
        LedgerUnavailable: PostgreSQL does not answer.
        ValueError: the URL cannot be read.
    """
    engine = create_ledger_engine(database_url)
    try:
        return await at_head(engine)
    finally:
        await engine.dispose()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "partywall_service.ledger:migrations")
    config.set_main_option("path_separator", "os")
    return config


def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _newer(connection: Connection) -> bool:
    """Whether the database is at a revision that this version does not know."""
    revision = _revision(connection)
    if revision is None:
        return False
    try:
        _scripts().get_revision(revision)
    except CommandError:
        return True
    return False
