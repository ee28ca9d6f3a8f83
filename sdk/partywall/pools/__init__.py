"""Database connections shared fairly by tenants: SQLAlchemy's asyncio engines on PostgreSQL.

    pools = TenantPools("postgresql+psycopg://localhost/app", size=10, per_tenant=3)
    async with pools.connection() as connection: ...

docs/pools.md has the whole of it. Needs `pip install 'partywall[sqlalchemy]'` and a driver: psycopg
or asyncpg.
"""

try:
    import sqlalchemy.ext.asyncio  # noqa: F401 - only to say what to install where it is missing
except ModuleNotFoundError as exc:
    if exc.name is None or exc.name.partition(".")[0] not in ("sqlalchemy", "greenlet"):
        raise
    raise ImportError(
        "partywall.pools needs SQLAlchemy: pip install 'partywall[sqlalchemy]'"
    ) from exc

from partywall.pools.errors import PoolsClosed, PoolTimeout
from partywall.pools.rls import rls_statements
from partywall.pools.stats import PoolStats, PoolUse, TenantUse
from partywall.pools.tenant_pools import TenantPools

__all__ = [
    "PoolStats",
    "PoolTimeout",
    "PoolUse",
    "PoolsClosed",
    "TenantPools",
    "TenantUse",
    "rls_statements",
]
