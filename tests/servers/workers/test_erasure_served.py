"""Whether a tenant that was erased is served again: a sidecar's keeper says it when it is asked."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from partywall_service.ledger import Ledger
from partywall_workers.errors import TenantErased
from partywall_workers.queue import FairQueue
from tests.acceptance.asking import until
from tests.servers.test_keeper import POLICY, Site

DEFAULT_TIER = 'default_tier = "free"\n'


@pytest.fixture(params=[True, False], ids=["default tier", "registered only"])
async def site(
    request: pytest.FixtureRequest,
    jobs_queue: FairQueue,
    ledger: Ledger,
    database_url: str,
    tmp_path: Path,
) -> AsyncIterator[Site]:
    file = tmp_path / "quotas.toml"
    file.write_text(POLICY if request.param else POLICY.replace(DEFAULT_TIER, ""))
    site = Site(jobs_queue, ledger, database_url, file)
    async with site.sidecar().running():
        yield site


async def keys_of(site: Site, tenant: str) -> list[bytes]:
    pattern = f"*{site.queue.name}*{tenant}*"
    return [key async for key in site.queue.redis.scan_iter(match=pattern, count=10_000)]


async def test_an_erased_tenant_queues_jobs_again_once_it_is_served_and_not_before(
    site: Site,
) -> None:
    served = site.policy.current.default_tier is not None
    await site.enqueue("acme")
    await site.until("acme", lambda it: it.tier if served else it.held)
    await site.queue.erase("acme")
    assert await keys_of(site, "acme") == []
    if not served:
        with pytest.raises(TenantErased):
            await site.enqueue("acme")

        async def all_told() -> bool:
            return not await site.queue.redis.scard(f"{site.queue.name}:wanted")

        await until(all_told)
        assert await keys_of(site, "acme") == []
        await site.ledger.put_tenant("acme", tier="free", actor="test")
        await until(lambda: enqueued(site, "acme"))
    else:
        await site.enqueue("acme")
    assert (await site.queue.backlog("acme")).tier == "free"
    assert await site.startable() == 1


async def enqueued(site: Site, tenant: str) -> bool:
    """A sidecar hears of a registration a moment later."""
    try:
        await site.enqueue(tenant)
    except TenantErased:
        return False
    return True
