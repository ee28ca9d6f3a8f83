"""Migrations: they build what the tables say, whoever runs them, however often."""

import uuid
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context

import psycopg
import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from psycopg import sql
from sqlalchemy import Connection, create_engine

from partywall_service.embedded import PostgresServer
from partywall_service.ledger import Ledger, LedgerUnavailable, create_ledger_engine, migrations
from partywall_service.ledger.migrations import at_head, upgrade
from partywall_service.ledger.tables import metadata


@pytest.fixture
def empty_url(postgres_server_url: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"empty_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield psycopg.conninfo.make_conninfo(postgres_server_url, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


def in_schema(url: str, schema: str) -> str:
    return psycopg.conninfo.make_conninfo(url, options=f"-c search_path={schema}")


# Everything autogenerate does not compare: collations, checks, defaults, index definitions.
CATALOGUE = """
SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull::text,
       a.attidentity::text, l.collname::text, pg_get_expr(d.adbin, d.adrelid)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0
  LEFT JOIN pg_collation l ON l.oid = a.attcollation
  LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
 WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
UNION ALL
SELECT 'constraint', c.relname, n.conname, pg_get_constraintdef(n.oid), '', '', '', ''
  FROM pg_class c JOIN pg_constraint n ON n.conrelid = c.oid
 WHERE c.relnamespace = current_schema()::regnamespace
UNION ALL
SELECT 'index', i.tablename, i.indexname, replace(i.indexdef, current_schema() || '.', ''),
       '', '', '', ''
  FROM pg_indexes i WHERE i.schemaname = current_schema()
"""


def catalogue(url: str) -> set[tuple[object, ...]]:
    with psycopg.connect(url) as connection:
        rows = connection.execute(CATALOGUE).fetchall()
    return {row for row in rows if row[1] != "alembic_version"}


def test_migrations_build_exactly_what_the_tables_say(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("CREATE SCHEMA migrated")
        connection.execute("CREATE SCHEMA declared")
    migrated, declared = in_schema(empty_url, "migrated"), in_schema(empty_url, "declared")
    upgrade(migrated)
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(declared))
    with engine.begin() as connection:
        metadata.create_all(connection)
    engine.dispose()
    assert len(catalogue(declared)) > 30
    assert catalogue(migrated) == catalogue(declared)


async def test_autogenerate_finds_nothing_to_do(database_url: str) -> None:
    def differences(connection: Connection) -> list[object]:
        options = {"compare_type": True, "compare_server_default": True}
        return compare_metadata(MigrationContext.configure(connection, opts=options), metadata)

    engine = create_ledger_engine(database_url)
    async with engine.connect() as connection:
        assert await connection.run_sync(differences) == []
    await engine.dispose()


async def test_head_is_known_before_and_after(empty_url: str) -> None:
    engine = create_ledger_engine(empty_url)
    assert not await at_head(engine)
    upgrade(empty_url)
    assert await at_head(engine)
    await engine.dispose()


async def test_a_second_run_changes_nothing(database_url: str) -> None:
    engine = create_ledger_engine(database_url)
    ledger = Ledger(engine)
    await ledger.put_tenant("acme", tier="free", actor="test")
    before = catalogue(database_url)
    upgrade(database_url)
    assert catalogue(database_url) == before
    assert await ledger.get_tenant("acme") is not None
    await engine.dispose()


def test_what_an_older_version_wrote_stays(empty_url: str) -> None:
    engine = create_engine("postgresql+psycopg://", creator=lambda: psycopg.connect(empty_url))
    with engine.begin() as connection:
        config = migrations._config()
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        connection.exec_driver_sql(
            "INSERT INTO tenants (tenant, name, tier, status) VALUES ('acme', '', 't', 'active');"
            " INSERT INTO audit (actor, action, tenant, detail) VALUES ('x', 'y', 'acme', '{}');"
            " INSERT INTO quota_ledger (tenant, at, resource, operation, delta, used, actor)"
            " VALUES ('acme', now(), 'users', 'consume', 1, 1, 'x')"
        )
    engine.dispose()
    upgrade(empty_url)
    with psycopg.connect(empty_url) as connection:
        for table in ("tenants", "audit", "quota_ledger"):
            assert connection.execute(f"SELECT tenant FROM {table}").fetchall() == [("acme",)]


@pytest.fixture(scope="module")
def processes() -> Iterator[ProcessPoolExecutor]:
    with ProcessPoolExecutor(3, mp_context=get_context("spawn")) as pool:
        yield pool


async def test_processes_may_migrate_one_database_at_once(
    empty_url: str, processes: ProcessPoolExecutor
) -> None:
    list(processes.map(upgrade, [empty_url] * 6))
    engine = create_ledger_engine(empty_url)
    assert await at_head(engine)
    await engine.dispose()


async def test_threads_may_migrate_one_database_at_once(empty_url: str) -> None:
    with ThreadPoolExecutor(6) as threads:
        list(threads.map(upgrade, [empty_url] * 6))
    engine = create_ledger_engine(empty_url)
    assert await at_head(engine)
    await engine.dispose()


def test_another_databases_migration_may_make_the_role_meanwhile(
    own_postgres: PostgresServer,
) -> None:
    """A role belongs to the server, and no lock of one database reaches another."""
    with (
        psycopg.connect(own_postgres.url, autocommit=True) as watcher,
        ThreadPoolExecutor() as pool,
    ):
        watcher.execute("CREATE ROLE app LOGIN CREATEROLE")
        watcher.execute("CREATE DATABASE app OWNER app")
        other_url = psycopg.conninfo.make_conninfo(own_postgres.url, user="app")
        with psycopg.connect(other_url) as other:
            other.execute("CREATE ROLE partywall_tenant NOLOGIN")
            other.execute("GRANT partywall_tenant TO app")
            ours = pool.submit(upgrade, psycopg.conninfo.make_conninfo(other_url, dbname="app"))
            waiting = (
                "SELECT FROM pg_stat_activity WHERE datname = 'app' AND wait_event_type = 'Lock'"
            )
            while watcher.execute(waiting).fetchone() is None:
                assert not ours.done()
            other.commit()
        ours.result()


async def test_a_schema_of_ones_own_serves_as_well(empty_url: str) -> None:
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute('CREATE SCHEMA "Own schema"')
    url = in_schema(empty_url, '"Own\\ schema"')
    upgrade(url)
    engine = create_ledger_engine(url)
    ledger = Ledger(engine)
    await ledger.put_tenant("acme", tier="free", actor="test")
    assert await at_head(engine)
    assert await ledger.get_tenant("acme", scope="acme") is not None
    await engine.dispose()
    with psycopg.connect(empty_url) as connection:
        assert connection.execute("SELECT to_regclass('public.tenants')").fetchone() == (None,)


async def test_a_search_path_that_follows_the_user_survives_the_tenants_role(
    empty_url: str,
) -> None:
    """With the default search path, tables in a schema named as the user vanish under SET ROLE."""
    with psycopg.connect(empty_url, autocommit=True) as connection:
        connection.execute("DO $$ BEGIN EXECUTE format('CREATE SCHEMA %I', current_user); END $$")
    upgrade(empty_url)
    engine = create_ledger_engine(empty_url)
    ledger = Ledger(engine)
    await ledger.put_tenant("acme", tier="free", actor="test")
    assert await ledger.get_tenant("acme", scope="acme") is not None
    await engine.dispose()


async def test_a_newer_versions_database_is_served_and_left_alone(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    upgrade(database_url)
    engine = create_ledger_engine(database_url)
    assert await at_head(engine)
    await engine.dispose()


async def test_a_database_nobody_migrated_is_an_outage_that_says_what_to_run(
    empty_url: str,
) -> None:
    engine = create_ledger_engine(empty_url)
    with pytest.raises(LedgerUnavailable, match="partywall db upgrade"):
        await Ledger(engine).load_many(["acme"])
    await engine.dispose()


def test_a_server_that_is_not_there_is_one_sentence(own_postgres: PostgresServer) -> None:
    own_postgres.stop()
    with pytest.raises(LedgerUnavailable, match="PostgreSQL"):
        upgrade(own_postgres.url)
