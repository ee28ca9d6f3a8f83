"""Notices: written once for each change, sent signed until they are taken."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from arq.cron import cron
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncEngine

from partywall_service.engine.base import StoreError
from partywall_service.maintenance.judging import (
    JUDGING,
    Judging,
    deliver_notice,
    judge_neighbours,
    open_judging,
)
from partywall_service.settings import Settings
from partywall_service.usage.judging import Judge
from partywall_service.usage.notices import Kept, Notice, NoticeStore
from partywall_service.usage.webhooks import NotDelivered, Webhooks, webhook_client
from partywall_workers.policy import SYSTEM_LANE, SYSTEM_POLICY, SYSTEM_TENANT
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from partywall_workers.worker import FairWorker
from tests.servers.usage.counts import point
from tests.servers.usage.receiver import SECRET, Receiver, receiving
from tests.servers.usage.test_neighbours import Street

AT = datetime(2026, 3, 10, 12, tzinfo=UTC)


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as one:
        yield one


@pytest.fixture
def notices(ledger_engine: AsyncEngine) -> NoticeStore:
    return NoticeStore(ledger_engine)


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    async with webhook_client() as client:
        yield client


@pytest.fixture
def street(ledger_engine: AsyncEngine) -> Street:
    """A loud tenant beside a quiet one, now."""
    street = Street(ledger_engine)
    street.now = datetime.now(UTC)
    street.hold(point(street.now, 500, "loud"), point(street.now, 5, "quiet"))
    return street


def judge_of(street: Street, engine: AsyncEngine) -> Judge:
    return Judge(engine, street.neighbours, clock=lambda: street.now)


async def all_of(notices: NoticeStore) -> list[Kept]:
    return list(await notices.list(limit=100))


async def written(notices: NoticeStore) -> Kept:
    """A notice to be delivered."""
    told = Notice("tenant.noisy", datetime.now(UTC), "acme", {"reason": "ä"})
    assert await notices.write_unless_told(told)
    kept = await notices.find(told.id)
    assert kept is not None
    return kept


async def test_a_judgement_is_written_with_a_notice_of_what_is_new(
    street: Street, ledger_engine: AsyncEngine, notices: NoticeStore
) -> None:
    judge = judge_of(street, ledger_engine)
    assert await judge.run()
    assert await street.neighbours.snapshot() == await street.neighbours.judge()
    for _ in range(3):
        street.now += timedelta(seconds=15)
        assert await judge.run()
    (told,) = await all_of(notices)
    assert (told.kind, told.tenant, told.status) == ("tenant.noisy", "loud", "pending")
    assert told.body["data"]["reason"] == (await street.neighbours.snapshot())[0].reason


async def test_two_judges_at_once_tell_of_a_change_once(
    street: Street, ledger_engine: AsyncEngine, notices: NoticeStore
) -> None:
    judges = [judge_of(street, ledger_engine) for _ in range(5)]
    ran = await asyncio.gather(*(judge.run() for judge in judges))
    assert any(ran)
    assert len(await all_of(notices)) == 1


async def test_it_is_told_again_after_a_quiet_time(
    street: Street, ledger_engine: AsyncEngine, notices: NoticeStore
) -> None:
    judge = judge_of(street, ledger_engine)
    await judge.run()
    street.counts.left.clear()
    street.now += timedelta(minutes=1)
    street.hold(point(street.now, 50, "loud"), point(street.now, 50, "quiet"))
    await judge.run()  # it is over
    for pause, expected in ((13, 1), (30, 2)):
        street.now += timedelta(minutes=pause)
        street.hold(point(street.now, 5000, "loud"))
        await judge.run()
        assert len(await all_of(notices)) == expected
        street.counts.left.popitem()
        await judge.run()


async def test_who_was_erased_meanwhile_is_not_written(
    street: Street, ledger_engine: AsyncEngine, notices: NoticeStore
) -> None:
    judged = await street.neighbours.judge()
    assert len(judged) == 2
    async with ledger_engine.begin() as connection:
        await street.usage.erase(connection, "loud")
    await judge_of(street, ledger_engine).run()
    assert [one.tenant for one in await street.neighbours.snapshot()] == ["quiet"]
    assert await all_of(notices) == []


LEVEL = text("""
    INSERT INTO quota_levels
        (tenant, resource, used, reserved, version, crossed, crossed_at, refills)
    VALUES ('acme', :resource, :used, 0, 1, :crossed, :at, 0)
    ON CONFLICT (tenant, resource) DO UPDATE
        SET used = :used, crossed = :crossed, crossed_at = :at
""")


async def test_a_quota_that_crosses_a_threshold_is_told_once_for_each(
    street: Street, ledger_engine: AsyncEngine, notices: NoticeStore
) -> None:
    judge = judge_of(street, ledger_engine)
    street.counts.left.clear()
    begin = street.now

    async def level(crossed: int, minutes: float, resource: str = "users") -> list[tuple[str, int]]:
        street.now = begin + timedelta(minutes=minutes)
        row = {"resource": resource, "used": crossed, "crossed": crossed}
        async with ledger_engine.begin() as connection:
            await connection.execute(LEVEL, row | {"at": street.now if crossed else None})
        for _ in range(2):
            await judge.run()
        told = [one.body["data"] for one in await all_of(notices)]
        return sorted((one["resource"], one["percent"]) for one in told)

    assert await level(80, 0) == [("users", 80)]
    assert await level(95, 1) == [("users", 80), ("users", 95)]
    assert await level(0, 2) == [("users", 80), ("users", 95)]
    assert await level(80, 3) == [("users", 80), ("users", 95)]  # to and fro
    assert await level(100, 4, "storage") == [("storage", 100), ("users", 80), ("users", 95)]
    assert len(await level(80, 30)) == 4


async def test_a_notice_is_sent_once_and_can_be_verified(
    notices: NoticeStore, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    kept = await written(notices)
    webhooks = Webhooks(notices, [f"{receiver.url}/hook?key=1"], SECRET, http)
    for _ in range(2):
        await webhooks.deliver(kept.id)
    (got,) = receiver.got
    assert got.verified() == kept.body
    assert (got.path, got.headers["webhook-id"]) == ("/hook?key=1", kept.id)
    assert got.headers["content-type"] == "application/json"
    after = await notices.find(kept.id)
    assert after is not None
    assert (after.status, after.attempts, after.error) == ("delivered", 1, None)
    await webhooks.deliver("no such notice")


async def test_only_who_has_not_taken_it_is_asked_again(
    notices: NoticeStore, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    kept = await written(notices)
    with receiving() as other:
        webhooks = Webhooks(notices, [f"{receiver.url}/a", f"{other.url}/secret"], SECRET, http)
        other.statuses = [500, 302]
        for status in (500, 302):
            with pytest.raises(NotDelivered) as raised:
                await webhooks.deliver(kept.id)
            assert str(raised.value) == f"127.0.0.1 answered {status}"
        await webhooks.deliver(kept.id)
        assert [got.path for got in receiver.got] == ["/a"]
        assert [got.path for got in other.got] == ["/secret"] * 3
    after = await notices.find(kept.id)
    assert after is not None
    assert (after.status, after.attempts, after.error) == ("delivered", 3, None)


async def test_who_is_gone_is_not_asked_again(
    notices: NoticeStore, receiver: Receiver, http: httpx.AsyncClient
) -> None:
    kept = await written(notices)
    receiver.statuses = [410]
    await Webhooks(notices, [receiver.url], SECRET, http).deliver(kept.id)
    after = await notices.find(kept.id)
    assert after is not None
    assert (after.status, after.error) == ("failed", "127.0.0.1 answered 410")


async def test_after_the_last_try_it_has_failed(
    notices: NoticeStore, http: httpx.AsyncClient
) -> None:
    kept = await written(notices)
    with receiving() as nobody:
        url = nobody.url
    webhooks = Webhooks(notices, [url], SECRET, http)
    with pytest.raises(NotDelivered, match=r"127\.0\.0\.1 could not be asked"):
        await webhooks.deliver(kept.id)
    assert await notices.due() == [kept.id]
    with pytest.raises(NotDelivered):
        await webhooks.deliver(kept.id, last=True)
    after = await notices.find(kept.id)
    assert after is not None
    assert (after.status, after.attempts) == ("failed", 2)
    assert await notices.due() == []


async def test_what_nobody_sends_is_said_to_be_unsent_after_a_day(
    notices: NoticeStore, ledger_engine: AsyncEngine
) -> None:
    kept = await written(notices)
    old = text("UPDATE notices SET at = at - CAST(:age AS interval)")
    async with ledger_engine.begin() as connection:
        await connection.execute(old, {"age": timedelta(hours=26)})
    after = await notices.find(kept.id)
    assert after is not None
    assert after.status == "unsent"
    assert await notices.due() == []
    await notices.forget()
    assert await notices.find(kept.id) is not None
    async with ledger_engine.begin() as connection:
        await connection.execute(old, {"age": timedelta(days=30)})
    await notices.forget()
    assert await notices.find(kept.id) is None


class Running:
    """Maintenance workers whose only jobs are those of neighbours."""

    def __init__(self, street: Street, engine: AsyncEngine, queue: FairQueue, url: str) -> None:
        self._street = street
        self._engine = engine
        self._queue = queue
        self._url = url

    @asynccontextmanager
    async def judging(self, *urls: str) -> AsyncIterator[Judging]:
        settings = Settings(webhook_urls=urls, webhook_secret=SECRET)
        async with open_judging(self._engine, self._street.neighbours, settings) as judging:
            yield judging

    async def burst(self, judging: Judging) -> None:
        """Runs what jobs there are."""

        async def give(ctx: dict[str, Any]) -> None:
            ctx[JUDGING] = judging

        worker = FairWorker(
            [deliver_notice],
            cron_jobs=[cron(judge_neighbours, name="judge_neighbours", second=0)],
            redis_pool=FairRedis.from_url(self._url, queue_name=self._queue.name),
            lanes=(SYSTEM_LANE,),
            on_startup=give,
            burst=True,
            handle_signals=False,
        )
        try:
            await worker.async_run()
        finally:
            await worker.close()


@pytest.fixture
async def running(
    street: Street, ledger_engine: AsyncEngine, jobs_queue: FairQueue, valkey_url: str
) -> Running:
    await jobs_queue.set_policy(SYSTEM_TENANT, SYSTEM_POLICY)
    return Running(street, ledger_engine, jobs_queue, valkey_url)


async def test_two_judges_queue_one_job_for_a_notice(
    running: Running, notices: NoticeStore, receiver: Receiver, jobs_queue: FairQueue
) -> None:
    async with running.judging(receiver.url) as judging:
        await asyncio.gather(*(judging.run(jobs_queue.redis) for _ in range(3)))
        await judging.run(jobs_queue.redis)  # as after a crash before it was queued
        await asyncio.gather(*(running.burst(judging) for _ in range(2)))
        await judging.run(jobs_queue.redis)
        await running.burst(judging)
    (kept,) = await all_of(notices)
    (got,) = receiver.got
    assert got.verified() == kept.body
    assert (kept.status, kept.attempts) == ("delivered", 1)


async def test_a_job_tries_again_when_a_webhook_fails(
    running: Running,
    notices: NoticeStore,
    receiver: Receiver,
    jobs_queue: FairQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    options = deliver_notice.__partywall_job__  # type: ignore[attr-defined] # what @job declares
    monkeypatch.setattr(deliver_notice, "__partywall_job__", replace(options, backoff=0.01))
    receiver.statuses = [500, 503]
    async with running.judging(receiver.url) as judging:
        await judging.run(jobs_queue.redis)
        await running.burst(judging)
    (kept,) = await all_of(notices)
    assert [got.verified() for got in receiver.got] == [kept.body] * 3
    assert (kept.status, kept.attempts) == ("delivered", 3)


async def test_without_webhooks_notices_are_kept_for_whoever_looks(
    running: Running, notices: NoticeStore, jobs_queue: FairQueue
) -> None:
    async with running.judging() as judging:
        await judging.run(jobs_queue.redis)
    assert [one.status for one in await all_of(notices)] == ["unsent"]
    assert await jobs_queue.list(SYSTEM_TENANT) == ([], None)


async def test_a_judgement_that_cannot_be_made_is_made_the_next_time(
    running: Running,
    street: Street,
    notices: NoticeStore,
    jobs_queue: FairQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def fails(_tenants: object = None) -> list[Any]:
        raise StoreError("Redis is away")

    async with running.judging() as judging:
        with monkeypatch.context() as patched:
            patched.setattr(street.counts, "held", fails)
            await judging.run(jobs_queue.redis)
        assert await all_of(notices) == []
        await judging.run(jobs_queue.redis)
    assert len(await all_of(notices)) == 1
