"""Job policies in the queue's Redis, on a real Valkey and a real PostgreSQL."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from partywall_service.api.auth import Authenticator
from partywall_service.background import run_in_background, stop_in_background
from partywall_service.directory import Directory
from partywall_service.embedded import ValkeyServer
from partywall_service.jobs.connect import open_queue
from partywall_service.jobs.keeper import Keeper
from partywall_service.jobs.kept import KeptPolicies
from partywall_service.ledger import Ledger
from partywall_service.metrics import Metrics
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.loader import load_policy
from partywall_service.upkeep import PolicyUpkeep, heed_changes
from partywall_workers.policy import CRON_TENANT, SYSTEM_LANE, SYSTEM_TENANT
from partywall_workers.queue import FairQueue
from partywall_workers.records import Backlog
from tests.acceptance.asking import until

POLICY = """
default_tier = "free"
[tiers.free.jobs]
concurrency = 2
max_queued = 1000
rate = "100/minute"
[tiers.pro]
weight = 4
features = ["sso"]
[tiers.pro.jobs]
concurrency = 8
queue = "dedicated"
"""

FELT = 0.5
"""Seconds within which a change is to be felt."""


class Clock:
    """Seconds since the epoch, moved by the test."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def __call__(self) -> float:
        return datetime.now(UTC).timestamp() + self.ahead


class Sidecar:
    """What of a sidecar keeps policies; as many as wanted on one queue."""

    def __init__(
        self, queue: FairQueue, ledger: Ledger, database_url: str, policy: PolicyHolder
    ) -> None:
        self.clock = Clock()
        self.ledger = ledger
        self.policy = policy
        self.metrics = Metrics()
        self._database_url = database_url
        self._authenticator = Authenticator(ledger, "an-admin-token")
        self.directory = Directory(ledger, policy, size=1000, clock=self.clock)
        kept = KeptPolicies(queue.redis)
        self.keeper = Keeper(queue, kept, self.directory, clock=self.clock)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        async with AsyncExitStack() as stack:
            for run in (self.keeper.run, self._heed):
                task = run_in_background(run.__name__, run)
                stack.push_async_callback(stop_in_background, task)
            yield

    async def _heed(self) -> None:
        await heed_changes(
            self._database_url, self.directory, self._authenticator, self.keeper, self.metrics
        )


class Site:
    """A queue, a ledger, a policy file, and sidecars on them."""

    def __init__(self, queue: FairQueue, ledger: Ledger, database_url: str, file: Path) -> None:
        self.queue = queue
        self.ledger = ledger
        self.file = file
        self.policy = PolicyHolder(load_policy(file))
        self._database_url = database_url

    def sidecar(self) -> Sidecar:
        return Sidecar(self.queue, self.ledger, self._database_url, self.policy)

    async def enqueue(self, tenant: str) -> None:
        await self.queue.enqueue(tenant, "anything")

    async def until(
        self, tenant: str, wanted: Callable[[Backlog], object], seconds: float = 20
    ) -> Backlog:
        """The tenant's jobs in numbers, once they are as wanted."""
        found: list[Backlog] = []

        async def asked() -> bool:
            found[:] = [await self.queue.backlog(tenant)]
            return bool(wanted(found[0]))

        await until(asked, seconds=seconds)
        return found[0]

    async def startable(self) -> int:
        """How many jobs a worker gets."""
        claims = await self.queue.redis.scripts.claim(
            100, lease=60_000, keep=1000, costs=b"{}", lanes=["default", "dedicated"]
        )
        return len(claims.jobs)


@pytest.fixture
def site(jobs_queue: FairQueue, ledger: Ledger, database_url: str, tmp_path: Path) -> Site:
    file = tmp_path / "quotas.toml"
    file.write_text(POLICY)
    return Site(jobs_queue, ledger, database_url, file)


@pytest.fixture
async def one(site: Site) -> AsyncIterator[Sidecar]:
    sidecar = site.sidecar()
    async with sidecar.running():
        yield sidecar


async def test_a_tenants_first_job_brings_its_policy(site: Site, one: Sidecar) -> None:
    await site.ledger.put_tenant("acme", tier="pro", actor="test")
    await site.enqueue("acme")
    await site.enqueue("nobody")
    acme = await site.until("acme", lambda it: it.tier)
    assert (acme.tier, acme.weight, acme.lane) == ("pro", 4, "dedicated")
    assert (acme.concurrency, acme.max_queued, acme.held) == (8, None, None)
    nobody = await site.until("nobody", lambda it: it.tier)
    assert (nobody.tier, nobody.weight, nobody.lane) == ("free", 1, "default")
    assert (nobody.concurrency, nobody.max_queued, nobody.held) == (2, 1000, None)
    (job,) = (
        await site.queue.redis.scripts.claim(
            9, lease=60_000, keep=1000, costs=b"{}", lanes=["dedicated"]
        )
    ).jobs
    assert (job.tenant, job.tier, job.features) == ("acme", "pro", b'["sso"]')


async def test_suspending_a_tenant_holds_its_jobs_until_it_is_active(
    site: Site, one: Sidecar, soak: bool
) -> None:
    await site.ledger.put_tenant("acme", tier="free", actor="test")
    await site.enqueue("acme")
    await site.until("acme", lambda it: it.tier)
    for status, held in (("suspended", "suspended"), ("provisioning", "provisioning")):
        await site.ledger.put_tenant("acme", tier="free", status=status, actor="test")
        await site.until("acme", lambda it, held=held: it.held == held, FELT if soak else 20)
        assert await site.startable() == 0
    await site.ledger.put_tenant("acme", tier="free", status="active", actor="test")
    await site.until("acme", lambda it: it.held is None, FELT if soak else 20)
    assert await site.startable() == 1


async def test_an_override_is_felt_and_its_end_too(site: Site, one: Sidecar) -> None:
    await site.ledger.put_tenant("acme", tier="free", actor="test")
    for _ in range(9):
        await site.enqueue("acme")
    await site.until("acme", lambda it: it.concurrency == 2)
    assert await site.startable() == 2
    await override(site, "concurrency", 5, ends=datetime.now(UTC) + timedelta(hours=1))
    await override(site, "queue", "dedicated", ends=datetime.now(UTC) + timedelta(hours=2))
    await site.until("acme", lambda it: (it.concurrency, it.lane) == (5, "dedicated"))
    assert await site.startable() == 3
    one.clock.ahead = 3600
    await site.until("acme", lambda it: (it.concurrency, it.lane) == (2, "dedicated"))
    one.clock.ahead = 7200
    await site.until("acme", lambda it: (it.concurrency, it.lane) == (2, "default"))
    await override(site, "concurrency", "unlimited")
    await site.until("acme", lambda it: it.concurrency is None)
    await site.ledger.delete_override("acme", "jobs", "concurrency", actor="test")
    await site.until("acme", lambda it: it.concurrency == 2)


async def test_an_overrides_end_is_felt_though_whoever_wrote_it_is_gone(site: Site) -> None:
    await site.ledger.put_tenant("acme", tier="free", actor="test")
    await override(site, "concurrency", 5, ends=datetime.now(UTC) + timedelta(hours=1))
    first, second = site.sidecar(), site.sidecar()
    async with first.running():
        await site.enqueue("acme")
        await site.until("acme", lambda it: it.concurrency == 5)
    second.clock.ahead = 3600
    async with second.running():
        await site.until("acme", lambda it: it.concurrency == 2)


async def test_a_tenant_without_jobs_gets_no_policy(site: Site, one: Sidecar) -> None:
    await site.enqueue("witness")
    await site.until("witness", lambda it: it.tier)
    for tenant in ("acme", "witness"):  # told of in this order
        await site.ledger.put_tenant(tenant, tier="pro", actor="test")
    await site.until("witness", lambda it: it.tier == "pro")
    assert (await site.queue.backlog("acme")).tier is None
    assert [tenant async for tenant in site.queue.policies()] == ["witness"]


async def test_a_deleted_tenant_is_one_that_nobody_registered(site: Site, one: Sidecar) -> None:
    await site.ledger.put_tenant("acme", tier="pro", actor="test")
    await site.enqueue("acme")
    await site.until("acme", lambda it: it.tier == "pro")
    await site.ledger.erase_tenant("acme", actor="test")
    await site.until("acme", lambda it: it.tier == "free")


async def test_a_changed_policy_file_is_felt_by_every_tenant_with_jobs(
    site: Site, one: Sidecar
) -> None:
    tenants = [f"t{n}" for n in range(5)]
    for tenant in tenants:
        await site.enqueue(tenant)
        await site.until(tenant, lambda it: it.tier)
    upkeep = PolicyUpkeep(site.file, site.policy, site.ledger, one.metrics, one.keeper)
    task = run_in_background("policy watch", upkeep.watch)
    try:
        site.file.write_text(POLICY.replace("concurrency = 2", "concurrency = 3"))
        for tenant in tenants:
            await site.until(tenant, lambda it: it.concurrency == 3)
        site.file.write_text(POLICY.replace('default_tier = "free"', ""))
        for tenant in tenants:
            await site.until(tenant, lambda it: (it.tier, it.held) == (None, "unknown"))
        assert await site.startable() == 0
    finally:
        await stop_in_background(task)


async def test_changes_that_no_sidecar_heard_are_felt_once_one_listens(site: Site) -> None:
    await site.ledger.put_tenant("acme", tier="free", actor="test")
    async with site.sidecar().running():
        await site.enqueue("acme")
        await site.until("acme", lambda it: it.tier == "free")
    await site.ledger.put_tenant("acme", tier="pro", actor="test")
    async with site.sidecar().running():
        await site.until("acme", lambda it: it.tier == "pro")


async def test_what_is_nobodys_has_fixed_policies(site: Site, one: Sidecar) -> None:
    for tenant in (SYSTEM_TENANT, CRON_TENANT):
        await site.enqueue(tenant)
        await site.until(tenant, lambda it, tenant=tenant: it.tier == tenant)
    assert (await site.queue.backlog(SYSTEM_TENANT)).lane == SYSTEM_LANE
    cron = await site.queue.backlog(CRON_TENANT)
    assert (cron.lane, cron.concurrency, cron.held) == ("default", None, None)


async def test_a_redis_that_lost_everything_gets_policies_again(site: Site, one: Sidecar) -> None:
    await site.ledger.put_tenant("acme", tier="pro", actor="test")
    await site.enqueue("acme")
    await site.until("acme", lambda it: it.tier == "pro")
    redis = site.queue.redis
    await redis.delete(*[key async for key in redis.scan_iter(match=f"*{site.queue.name}*")])
    assert (await site.queue.backlog("acme")).tier is None
    await site.enqueue("acme")
    await site.until("acme", lambda it: it.tier == "pro")


async def test_a_redis_that_comes_back_gets_what_changed_meanwhile(
    own_valkey: ValkeyServer, ledger: Ledger, database_url: str, tmp_path: Path
) -> None:
    file = tmp_path / "quotas.toml"
    file.write_text(POLICY)
    queue = open_queue(own_valkey.url, prefix="pw", keep=60)
    async with queue as opened:
        site = Site(opened, ledger, database_url, file)
        await ledger.put_tenant("acme", tier="free", actor="test")
        async with site.sidecar().running():
            await site.enqueue("acme")
            await site.until("acme", lambda it: it.tier == "free")
            own_valkey.stop()
            await ledger.put_tenant("acme", tier="pro", actor="test")
            own_valkey.start()
            await site.until("acme", lambda it: it.tier == "pro")


async def override(
    site: Site, name: str, value: str | int, *, ends: datetime | None = None
) -> None:
    await site.ledger.put_override(
        "acme", "jobs", name, value, expires_at=ends, reason="a test", author="test"
    )
