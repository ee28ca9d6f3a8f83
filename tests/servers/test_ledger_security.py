"""Row-level security: what a tenant's own token can read, whatever the statement forgets."""

import uuid
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from partywall_service.embedded import PostgresServer
from partywall_service.ledger import Ledger, LedgerUnavailable, create_ledger_engine
from partywall_service.ledger.migrations import at_head, upgrade

SCOPED = ("tenants", "tenant_domains", "overrides")
QUOTA_TABLES = ("quota_levels", "quota_reservations", "quota_ledger")
"""What a tenant sees of them is tested in test_quota_commits.py."""
USAGE_TABLES = ("usage_minutes", "usage_hours", "usage_days", "neighbours")


async def fill(ledger: Ledger) -> None:
    for tenant in ("acme", "umbrella"):
        await ledger.put_tenant(tenant, tier="free", domains=[f"{tenant}.example"], actor="test")
        await ledger.put_override(
            tenant, "limits", "requests", 1, expires_at=None, reason="", author="test"
        )
        await ledger.create_token(f"tenant:{tenant}", "own", actor="test")


def as_tenant(database_url: str, query: str, tenant: str | None) -> list[tuple[object, ...]]:
    with psycopg.connect(database_url) as connection:
        connection.execute("SET LOCAL ROLE partywall_tenant")
        if tenant is not None:
            connection.execute("SELECT set_config('app.tenant_id', %s, true)", [tenant])
        return connection.execute(query).fetchall()


@pytest.mark.parametrize("table", SCOPED)
async def test_without_a_where_a_tenant_sees_its_own_rows_only(
    ledger: Ledger, database_url: str, table: str
) -> None:
    await fill(ledger)
    query = f"SELECT tenant FROM {table}"
    assert as_tenant(database_url, query, "acme") == [("acme",)]
    assert as_tenant(database_url, query, "nobody") == []
    assert as_tenant(database_url, query, None) == []
    assert as_tenant(database_url, query, "") == []


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT * FROM tokens",
        "SELECT * FROM audit",
        "SELECT * FROM alembic_version",
        "SELECT * FROM notices",
        "SELECT * FROM usage_gone",
        "UPDATE tenants SET tier = 'enterprise'",
        "DELETE FROM overrides",
        "INSERT INTO tenant_domains VALUES ('x.example', 'acme')",
    ],
)
async def test_a_tenant_can_read_and_change_nothing_else(
    ledger: Ledger, database_url: str, statement: str
) -> None:
    await fill(ledger)
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        as_tenant(database_url, statement, "acme")


def test_the_policies_bind_the_owner_too(database_url: str) -> None:
    query = "SELECT relname FROM pg_class WHERE relrowsecurity AND relforcerowsecurity"
    with psycopg.connect(database_url) as connection:
        bound = {name for (name,) in connection.execute(query).fetchall()}
    assert bound == {*SCOPED, *QUOTA_TABLES, *USAGE_TABLES}


async def test_a_scoped_read_finds_its_own_and_no_other(ledger: Ledger) -> None:
    await fill(ledger)
    assert await ledger.get_tenant("acme", scope="acme") == await ledger.get_tenant("acme")
    assert await ledger.get_tenant("umbrella", scope="acme") is None
    assert await ledger.list_overrides("umbrella", limit=9, scope="acme") == []
    assert await ledger.list_overrides("acme", limit=9, scope="acme") == (
        await ledger.list_overrides("acme", limit=9)
    )


async def test_a_scope_ends_with_its_read(ledger: Ledger) -> None:
    """The pool hands the same connection to the next reader, who must be nobody's tenant."""
    await fill(ledger)
    for _ in range(5):
        assert await ledger.get_tenant("acme", scope="acme") is not None
        assert len(await ledger.list_tenants(limit=10)) == 2


@pytest.fixture
def plain_owner(postgres_server_url: str) -> Iterator[tuple[str, str]]:
    """The URL of an empty database whose owner is no superuser and may make no roles; its name."""
    name = f"owner_{uuid.uuid4().hex}"
    with psycopg.connect(postgres_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        admin.execute(sql.SQL("CREATE DATABASE {0} OWNER {0}").format(sql.Identifier(name)))
    yield psycopg.conninfo.make_conninfo(postgres_server_url, user=name, dbname=name), name
    with psycopg.connect(postgres_server_url, autocommit=True) as admin:
        admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


async def test_an_owner_that_is_no_superuser_is_told_what_an_administrator_must_run(
    database_url: str, postgres_server_url: str, plain_owner: tuple[str, str]
) -> None:
    """`database_url` is here so that the role exists: making it is what this owner may not do."""
    url, name = plain_owner
    with pytest.raises(LedgerUnavailable, match=f"GRANT partywall_tenant TO {name}"):
        upgrade(url)
    with psycopg.connect(postgres_server_url) as admin:
        admin.execute(sql.SQL("GRANT partywall_tenant TO {}").format(sql.Identifier(name)))
    upgrade(url)

    engine = create_ledger_engine(url)
    ledger = Ledger(engine)
    await fill(ledger)
    assert await at_head(engine)
    assert len(await ledger.list_tenants(limit=9)) == 2
    assert len(await ledger.load_many(["acme", "umbrella"])) == 2
    assert await ledger.get_tenant("acme", scope="acme") is not None
    assert await ledger.get_tenant("umbrella", scope="acme") is None
    for table in SCOPED:
        assert as_tenant(url, f"SELECT tenant FROM {table}", "acme") == [("acme",)]
    assert await ledger.erase_tenant("acme", actor="test")
    await engine.dispose()


async def test_an_owner_that_may_make_roles_needs_nobody(own_postgres: PostgresServer) -> None:
    """On a server that has never seen the role, as one a hosting company gives out."""
    with psycopg.connect(own_postgres.url, autocommit=True) as admin:
        admin.execute("CREATE ROLE app LOGIN CREATEROLE")
        admin.execute("CREATE DATABASE app OWNER app")
    url = psycopg.conninfo.make_conninfo(own_postgres.url, user="app", dbname="app")
    upgrade(url)
    engine = create_ledger_engine(url)
    ledger = Ledger(engine)
    await fill(ledger)
    assert len(await ledger.list_tenants(limit=9)) == 2
    assert await ledger.get_tenant("acme", scope="acme") is not None
    assert await ledger.get_tenant("umbrella", scope="acme") is None
    await engine.dispose()
