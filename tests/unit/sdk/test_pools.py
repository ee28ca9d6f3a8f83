"""`partywall.pools` without a database: what cannot be, the SQL it writes, and its extra."""

import subprocess
import sys
from typing import Any

import pytest
from sqlalchemy.ext.asyncio import create_async_engine

from partywall import ConfigurationError, PartywallError
from partywall.pools import PoolsClosed, PoolTimeout, TenantPools, rls_statements
from partywall.pools.rls import application_name

URL = "postgresql+psycopg://localhost/app"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size must be a whole number from 1, got 0"),
        ({"size": True}, "size must be a whole number from 1, got True"),
        ({"size": "10"}, "size must be a whole number from 1, got '10'"),
        ({"per_tenant": 0}, "per_tenant must be a whole number from 1, got 0"),
        ({"per_tenant": 1.5}, "per_tenant must be a whole number from 1, got 1.5"),
        ({"max_dedicated": -1}, "max_dedicated must be a whole number from 0, got -1"),
        ({"idle_seconds": 0}, "idle_seconds must be a number of seconds above 0, got 0"),
        ({"timeout": float("nan")}, "timeout must be a number of seconds above 0, got nan"),
        ({"timeout": "5"}, "timeout must be a number of seconds above 0, got '5'"),
        ({"role": ""}, "role must be a database role's name or None"),
        ({"dedicated": {"acme": 0}}, "dedicated pool of 'acme' must be a whole number from 1"),
        ({"dedicated": {"no tenant": 1}}, "expected a tenant's id"),
        ({"engine_options": {"pool_size": 5}}, "engine_options may not have pool_size"),
    ],
)
def test_what_cannot_be_is_said(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        TenantPools(URL, **options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("no url", "expected a database URL"),
        ("sqlite+aiosqlite://", "expected a PostgreSQL URL .*, got sqlite"),
        ("mysql+asyncmy://u:secret@localhost/app", "got mysql"),
    ],
)
def test_a_database_that_is_no_postgresql_is_refused_without_its_password(
    url: str, message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message) as caught:
        TenantPools(url)
    assert "secret" not in str(caught.value)


async def test_an_engine_of_no_limit_will_do() -> None:
    engine = create_async_engine(URL, pool_size=0)
    async with TenantPools(engine, size=50) as pools:
        assert pools.stats().shared.size == 50


@pytest.mark.parametrize("tenant", ["", "a b", "x" * 129, "ä", "'; --", 5])
async def test_what_can_be_no_tenants_id_gets_no_connection(tenant: Any) -> None:
    async with TenantPools(URL) as pools:
        with pytest.raises(ConfigurationError, match="expected a tenant's id"):
            await pools.connection(tenant).__aenter__()
        with pytest.raises(ConfigurationError, match="expected a tenant's id"):
            pools.promote(tenant, 1)


@pytest.mark.parametrize("url", ["postgresql://localhost/app", URL])
async def test_a_url_without_a_driver_is_psycopgs(url: str) -> None:
    async with TenantPools(url) as pools:
        assert pools.stats().shared.in_use == 0


def test_an_application_name_fits_postgresql() -> None:
    assert application_name("partywall", "acme") == "partywall:acme"
    assert application_name("p", "t" * 128) == "p:" + "t" * 61
    assert application_name("ü" * 32, "acme") == "ü" * 31


def test_the_statements_quote_names() -> None:
    table = '"Shop"."my ""orders"""'
    mine = "\"te nant\" = CAST(NULLIF(current_setting('app.tenant_id', true), '') AS uuid)"
    assert rls_statements('my "orders"', "te nant", schema="Shop", column_type="uuid") == [
        f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY",
        f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY",
        f"DROP POLICY IF EXISTS partywall_tenant ON {table}",
        f"CREATE POLICY partywall_tenant ON {table} USING ({mine}) WITH CHECK ({mine})",
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        {"table": ""},
        {"table": "a\0b"},
        {"table": "t", "column": ""},
        {"table": "t", "schema": ""},
        {"table": "t", "column_type": "text) OR (true"},
        {"table": "t", "column_type": ""},
    ],
)
def test_what_can_be_no_name_or_type_is_refused(arguments: dict[str, str]) -> None:
    with pytest.raises(ConfigurationError, match="expected the name"):
        rls_statements(**arguments)


@pytest.mark.parametrize("column_type", ["character varying(40)", "app.ref", "int8", "uuid"])
def test_types_of_more_than_a_word_are_known(column_type: str) -> None:
    assert f"AS {column_type})" in rls_statements("t", column_type=column_type)[-1]


def test_its_errors_are_in_partywalls_tree() -> None:
    assert issubclass(PoolTimeout, PartywallError)
    assert issubclass(PoolTimeout, TimeoutError)
    assert issubclass(PoolsClosed, PartywallError)


def test_without_sqlalchemy_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['sqlalchemy'] = None; import partywall.pools"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stderr.endswith(
        "ImportError: partywall.pools needs SQLAlchemy: pip install 'partywall[sqlalchemy]'\n"
    )
