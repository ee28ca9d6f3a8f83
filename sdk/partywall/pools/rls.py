"""Row-level security in the host's own database: whose transaction it is, and the policies."""

import re
from typing import Any

from sqlalchemy import TextClause, event, text
from sqlalchemy.engine import Connection
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from partywall.errors import ConfigurationError

SETTING = "app.tenant_id"
"""The parameter of a transaction that the policies compare with."""

_OPTION = "partywall_identity"
"""The execution option of a checked-out connection: the statement and its parameters."""

# A type as `uuid`, `bigint`, `character varying(40)`, `app.tenant_ref`.
_TYPE = re.compile(r"[A-Za-z_][\w.]*( [A-Za-z_]\w*)*(\(\d+\))?")

_LONGEST_NAME = 63
"""Bytes of an application_name; PostgreSQL would cut the rest off and say so at each checkout."""


def rls_statements(
    table: str,
    column: str = "tenant_id",
    *,
    schema: str | None = None,
    column_type: str = "text",
) -> list[str]:
    """SQL that shows each tenant its own rows of a table alone; it can be run again.

    Run it in one transaction, as the table's owner. The policy binds the owner as well (`FORCE`);
    it binds no superuser and no role with BYPASSRLS. A transaction of nobody's sees no row.

    Args:
        table: its name, quoted here.
        column: the one with the tenant's id, quoted here; it wants an index.
        schema: the table's, quoted here; None for where the search path finds it.
        column_type: the column's type, such as `text`, `uuid` or `bigint`.

    Raises:
        ConfigurationError: for what can be no name or type.
    """
    if not _TYPE.fullmatch(column_type):
        raise ConfigurationError(
            f"expected the name of a PostgreSQL type such as 'text', 'uuid' or 'bigint', got"
            f" {column_type!r}"
        )
    name = _quoted("table", table)
    if schema is not None:
        name = f"{_quoted('schema', schema)}.{name}"
    # After the first transaction of a tenant's the setting is '' in others, which is no uuid.
    asked = f"CAST(NULLIF(current_setting('{SETTING}', true), '') AS {column_type})"
    mine = f"{_quoted('column', column)} = {asked}"
    return [
        f"ALTER TABLE {name} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {name} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS partywall_tenant ON {name}",
        f"CREATE POLICY partywall_tenant ON {name} USING ({mine}) WITH CHECK ({mine})",
    ]


def _quoted(what: str, name: str) -> str:
    if not name or "\0" in name:
        raise ConfigurationError(f"expected the name of a {what}, got {name!r}")
    return '"' + name.replace('"', '""') + '"'


def application_name(prefix: str, tenant: str) -> str:
    """What `pg_stat_activity` shows of a tenant's connection: `prefix:tenant`, cut to 63 bytes."""
    # An id is ASCII, so cutting bytes may only split a letter of the prefix.
    return f"{prefix}:{tenant}".encode()[:_LONGEST_NAME].decode(errors="ignore")


class Identities:
    """Whose the transactions of one engine's connections are.

    Each transaction of a connection that was given a tenant begins with one statement that says so,
    `SET LOCAL` in effect: it ends with the transaction, so the next user of the pooled connection
    cannot inherit it, whether this one committed, failed or was cancelled. A COMMIT in the middle
    of a checkout begins the next transaction with it again.

    Args:
        role: a database role to be during the transaction (`SET LOCAL ROLE`), or None.
    """

    def __init__(self, role: str | None) -> None:
        settings = [
            f"set_config('{SETTING}', :tenant, true)",
            "set_config('application_name', :name, true)",
        ]
        self._always: dict[str, str] = {}
        if role is not None:
            settings.append("set_config('role', :role, true)")
            self._always["role"] = role
        self._statement = text(f"SELECT {', '.join(settings)}")

    async def give(self, connection: AsyncConnection, tenant: str, name: str) -> None:
        """Makes all transactions of a connection, until it is closed, the tenant's."""
        parameters = {"tenant": tenant, "name": name, **self._always}
        await connection.execution_options(**{_OPTION: (self._statement, parameters)})


def watch_transactions(engine: AsyncEngine) -> None:
    """Makes transactions of the engine's connections begin with what `Identities` gave them."""
    if not event.contains(engine.sync_engine, "begin", _identify):
        event.listen(engine.sync_engine, "begin", _identify)


def _identify(connection: Connection) -> None:
    identity: tuple[TextClause, dict[str, Any]] | None
    identity = connection.get_execution_options().get(_OPTION)
    if identity is None:
        return
    statement, parameters = identity
    try:
        _refuse_autocommit(connection)
        connection.execute(statement, parameters)
    except BaseException:
        # SQLAlchemy would let a second statement go without what failed here, as nobody's.
        connection.close()
        raise


def _refuse_autocommit(connection: Connection) -> None:
    if getattr(connection.connection.dbapi_connection, "autocommit", False):
        raise ConfigurationError(
            "a tenant's connection cannot be in AUTOCOMMIT: the tenant is set for a transaction,"
            " and ends with it"
        )
