"""What acts on a tenant as a whole, on the stores of one installation."""

from collections.abc import Sequence
from typing import NamedTuple

from redis.asyncio import Redis, RedisCluster
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.directory import Directory
from partywall_service.ledger import Ledger
from partywall_service.ledger.told import Rows
from partywall_service.tenants.erasure import Erasure
from partywall_service.tenants.export import Export
from partywall_service.tenants.jobs import TenantJobs
from partywall_service.tenants.redis_keys import TenantKeys
from partywall_service.usage.source import Source
from partywall_service.usage.store import UsageStore
from partywall_workers.queue import FairQueue


class WholeTenants(NamedTuple):
    """What removes, and what tells, all that is kept of a tenant."""

    erasure: Erasure
    export: Export


def whole_tenants(
    engine: AsyncEngine,
    ledger: Ledger,
    directory: Directory,
    client: Redis | RedisCluster,
    jobs: FairQueue,
    sources: Sequence[Source],
    *,
    prefix: str,
) -> WholeTenants:
    """Wires both.

    Args:
        engine: PostgreSQL.
        ledger: the same.
        directory: what this process remembers.
        client: the Redis of limits.
        jobs: the queue.
        sources: where usage waits for the roll-up.
        prefix: what every Redis key of the installation starts with.
    """
    keys, of_jobs = TenantKeys(client, prefix=prefix), TenantJobs(jobs)
    return WholeTenants(
        Erasure(ledger, UsageStore.erase, keys, of_jobs, directory),
        Export(Rows(engine), keys, of_jobs, sources),
    )
