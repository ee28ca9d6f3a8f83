"""Keeping job policies while PostgreSQL or Redis is away, in virtual time."""

import asyncio
from collections.abc import AsyncIterator, Collection, Coroutine, Mapping, Sequence
from typing import Any

import pytest
import structlog

from partywall_service import directory as directory_module
from partywall_service.directory import Directory
from partywall_service.jobs.keeper import BATCH, Keeper
from partywall_service.policy.holder import PolicyHolder
from partywall_workers.errors import QueueUnavailable
from partywall_workers.policy import JobPolicy
from tests.support.virtual_time import run_virtually
from tests.unit.test_directory import Ledger, policy, record


class Queue:
    """A queue's policies, and its Redis, which a test takes away."""

    def __init__(self) -> None:
        self.written: dict[str, JobPolicy] = {}
        self.batches: list[list[str]] = []
        self.ends: dict[str, float] = {}
        self.asked = 0
        self.up = True
        self.put = asyncio.Event()
        self._missing: dict[str, None] = {}
        self._news = asyncio.Event()

    def want(self, *tenants: str) -> None:
        self._missing.update(dict.fromkeys(tenants))
        self._news.set()

    async def wanted(self, *, timeout: float) -> list[str]:  # noqa: ASYNC109 - as the queue's own
        self.asked += 1
        self._answer()
        if not self._missing:
            self._news.clear()
            try:
                async with asyncio.timeout(timeout):
                    await self._news.wait()
            except TimeoutError:
                pass
        self._answer()
        return list(self._missing)

    async def policies(self) -> AsyncIterator[str]:
        self._answer()
        for tenant in list(self.written):
            yield tenant

    async def set_policies(self, policies: Mapping[str, JobPolicy]) -> None:
        self._answer()
        self.batches.append(list(policies))
        self.written |= policies
        self.put.set()
        for tenant in policies:
            self._missing.pop(tenant, None)

    async def known(self, tenants: Sequence[str]) -> Collection[str]:
        self._answer()
        return [tenant for tenant in tenants if tenant in self.written]

    async def note(self, ends: Mapping[str, float | None]) -> None:
        self._answer()
        for tenant, end in ends.items():
            self.ends.pop(tenant, None)
            if end is not None:
                self.ends[tenant] = end

    async def ended(self, now: float) -> tuple[list[str], float | None]:
        self._answer()
        past = [tenant for tenant, end in self.ends.items() if end <= now]
        return past, min((end for end in self.ends.values() if end > now), default=None)

    def _answer(self) -> None:
        if not self.up:
            raise QueueUnavailable("it is away")


class Site:
    """A keeper on a queue and a ledger that can fail."""

    def __init__(self, *tenants: str, tier: str = "free") -> None:
        self.queue = Queue()
        self.ledger = Ledger(*(record(tenant, tier) for tenant in tenants))
        self.directory = Directory(self.ledger, PolicyHolder(policy()), size=10_000)
        self.keeper = Keeper(self.queue, self.queue, self.directory)

    async def while_running(self, story: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(self.keeper.run())
        try:
            await story
        finally:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    def change(self, tenant: str, tier: str) -> None:
        """As a notice of PostgreSQL does."""
        self.ledger.tenants[tenant] = record(tenant, tier)
        self.directory.forget(tenant)
        self.keeper.changed(tenant)

    def tier(self, tenant: str) -> str | None:
        written = self.queue.written.get(tenant)
        return written.tier if written else None


@pytest.fixture(autouse=True)
def no_cool_down(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is real seconds, of which virtual time has none."""
    monkeypatch.setattr(directory_module, "COOL_DOWN", 0)


def test_while_postgresql_is_away_who_is_unknown_waits_and_others_go_on() -> None:
    async def main() -> None:
        site = Site("acme", "beta")

        async def story() -> None:
            site.queue.want("acme")
            await asyncio.sleep(1)
            assert site.tier("acme") == "free"
            site.ledger.down = True
            before = len(site.ledger.queries), site.queue.asked
            site.queue.want("beta")
            del site.queue.written["acme"]
            site.queue.want("acme")
            await asyncio.sleep(60)
            assert (site.tier("acme"), site.tier("beta")) == ("free", None)
            # It is tried again, and not all the time.
            assert 30 < len(site.ledger.queries) - before[0] < 1000
            assert 30 < site.queue.asked - before[1] < 1000
            site.ledger.down = False
            await asyncio.sleep(1)
            assert site.tier("beta") == "free"

        await site.while_running(story())

    with structlog.testing.capture_logs() as logs:
        run_virtually(main())
    assert [entry["event"] for entry in logs] == ["jobs.policies_put_off"]


def test_what_could_not_be_read_anew_is_read_again_until_it_is() -> None:
    """PostgreSQL told of the change and did not answer afterwards: what was known is not enough."""

    async def main() -> None:
        site = Site("acme")

        async def story() -> None:
            site.queue.want("acme")
            await asyncio.sleep(1)
            site.ledger.down = True
            site.change("acme", "pro")
            await asyncio.sleep(10)
            assert site.tier("acme") == "free"
            site.ledger.down = False
            await asyncio.sleep(1)
            assert site.tier("acme") == "pro"

        await site.while_running(story())

    run_virtually(main())


def test_a_change_that_comes_while_it_is_read_is_not_lost() -> None:
    async def main() -> None:
        site = Site("acme")

        async def story() -> None:
            site.ledger.gate = asyncio.Event()
            site.queue.want("acme")
            await site.ledger.asked.wait()
            site.change("acme", "pro")
            site.ledger.gate.set()
            await asyncio.sleep(1)
            assert site.tier("acme") == "pro"

        await site.while_running(story())

    run_virtually(main())


def test_an_outage_of_redis_is_told_once_and_everyone_is_written_after_it() -> None:
    async def main() -> None:
        site = Site("acme", "beta")

        async def story() -> None:
            site.queue.want("acme", "beta")
            await asyncio.sleep(1)
            site.queue.up = False
            site.change("acme", "pro")
            before = site.queue.asked
            await asyncio.sleep(60)
            assert 20 < site.queue.asked - before < 100
            # Another server than before, which knows no better.
            site.queue.written["beta"] = JobPolicy(tier="pro")
            site.queue.up = True
            await asyncio.sleep(3)
            assert (site.tier("acme"), site.tier("beta")) == ("pro", "free")

        await site.while_running(story())

    with structlog.testing.capture_logs() as logs:
        run_virtually(main())
    assert [entry["event"] for entry in logs] == ["jobs.queue_lost", "jobs.queue_back"]


def test_who_changes_does_not_wait_for_everyone() -> None:
    async def main() -> None:
        tenants = [f"t{n}" for n in range(20 * BATCH)]
        site = Site(*tenants)
        site.queue.written = dict.fromkeys(tenants, JobPolicy())

        async def story() -> None:
            site.keeper.everyone()
            await site.queue.put.wait()
            site.change("t0", "pro")
            await asyncio.sleep(1)
            assert ["t0"] in site.queue.batches[:5]
            written = [tenant for batch in site.queue.batches for tenant in batch]
            assert sorted(written) == sorted([*tenants, "t0"])
            assert site.tier("t0") == "pro"

        await site.while_running(story())

    run_virtually(main())


def test_who_cannot_be_a_tenant_is_held_and_nobody_is_asked() -> None:
    async def main() -> None:
        site = Site()

        async def story() -> None:
            strangers = ["_other", "a b", "a\x00b", "", "ü"]
            site.queue.want(*strangers, "_system")
            await asyncio.sleep(1)
            assert {site.queue.written[one].held for one in strangers} == {"unknown"}
            assert site.queue.written["_system"].held is None
            assert [name for query in site.ledger.queries for name in query] == []

        await site.while_running(story())

    run_virtually(main())
