"""Quota items of jobs, with a real sidecar and its ledger."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from arq.worker import Retry

from partywall import Partywall
from partywall_workers import GiveBack, GiveUp, job
from partywall_workers.job import JITTER
from partywall_workers.worker import FairWorker
from tests.acceptance.asking import fresh_tenant, new_token
from tests.servers.workers.working import Ctx, Held, Work
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

POLICY = """
[tiers.free.quotas]
emails = 2
calls = { limit = 2, per = "month" }
"""


@pytest.fixture(scope="module")
def one(test_run: TestRun) -> Iterator[Sidecar]:
    with shared_sidecars(test_run, POLICY) as (sidecar,):
        yield sidecar


@pytest.fixture
async def partywall(one: Sidecar) -> AsyncIterator[Partywall]:
    async with Partywall(one.url, token=ADMIN_TOKEN) as client:
        yield client


class Mail:
    """A tenant, its mails as jobs that take one of its two emails each, and who sends them."""

    def __init__(self, work: Work, partywall: Partywall) -> None:
        self.work = work
        self.partywall = partywall
        self.tenant = fresh_tenant()

    async def enqueue(self, function: Any, job_id: str, **options: Any) -> Any:
        options["_tenant"] = self.tenant
        return await self.work.enqueue(function, _job_id=job_id, **options)

    async def burst(self, *functions: Any, **options: Any) -> FairWorker:
        return await self.work.burst(*functions, sidecar=self.partywall, **options)

    async def once(self, *functions: Any, **options: Any) -> None:
        """Runs one try of one job."""
        await self.burst(*functions, max_burst_jobs=1, **options)

    async def used(self, resource: str = "emails") -> int:
        return (await self.partywall.quota(self.tenant, resource)).used

    async def record(self, job_id: str) -> Any:
        return await self.work.queue.get(self.tenant, job_id)


@pytest.fixture
async def mail(work: Work, partywall: Partywall) -> Mail:
    made = Mail(work, partywall)
    await partywall.put_tenant(made.tenant, tier="free")
    return made


@job(quota={"emails": 1}, backoff=0)
async def send(ctx: Ctx) -> str:
    return "sent"


async def test_items_are_consumed_once_for_a_job_of_three_tries(mail: Mail) -> None:
    used: list[int] = []

    @job(quota={"emails": 1, "calls": 2}, backoff=0)
    async def flaky(ctx: Ctx) -> str:
        used.append(await mail.used())
        if ctx["job_try"] < 3:
            raise OSError("no route")
        return "sent"

    handle = await mail.enqueue(flaky, "it")
    await mail.burst(flaky)
    assert await handle.result(timeout=1) == "sent"
    assert used == [1, 1, 1]
    assert (await mail.used(), await mail.used("calls")) == (1, 2)


async def test_items_are_consumed_once_though_the_worker_was_lost_after_that(mail: Mail) -> None:
    """It had told the sidecar, and not yet Redis: the key says that it is the same job."""
    lost = asyncio.Event()

    class Dying(Partywall):
        async def try_consume(self, *args: Any, **options: Any) -> Any:
            await mail.partywall.try_consume(*args, **options)
            lost.set()
            await asyncio.Event().wait()

    handle = await mail.enqueue(send, "it")
    worker = mail.work.worker(send, sidecar=Dying(), burst=False, lease=1)
    running = asyncio.create_task(worker.async_run())
    await lost.wait()
    assert await mail.used() == 1
    running.cancel()
    (task,) = worker.tasks.values()
    task.cancel()
    await asyncio.gather(running, task, return_exceptions=True)
    await worker.pool.aclose(close_connection_pool=True)
    await mail.burst(send)
    assert await handle.result(timeout=1) == "sent"
    assert await mail.used() == 1


async def test_a_refused_job_waits_longer_each_time_and_runs_once_there_is_room(mail: Mail) -> None:
    await mail.partywall.consume(mail.tenant, emails=2)
    handle = await mail.enqueue(send, "it")
    at = await mail.work.now()
    for refusals in range(3):
        await mail.once(send, at=at)
        record = await mail.record("it")
        assert (record.status, record.attempts) == ("deferred", 0)
        assert record.error == "PartywallError: quota refused: no room for emails"
        pause = (record.run_at - at) / 1000
        assert 5 * 2**refusals * (1 - JITTER) <= pause <= 5 * 2**refusals * (1 + JITTER)
        at = record.run_at
    await mail.partywall.release(mail.tenant, emails=1)
    await mail.burst(send, at=at)
    assert await handle.result(timeout=1) == "sent"
    assert (await mail.record("it")).attempts == 1
    assert await mail.used() == 2


async def test_a_refused_job_fails_where_that_is_declared(mail: Mail) -> None:
    @job(quota={"emails": 3}, on_refusal="fail")
    async def thrice(ctx: Ctx) -> None:
        raise AssertionError("it must not run")

    await mail.enqueue(thrice, "it")
    await mail.burst(thrice)
    record = await mail.record("it")
    assert (record.status, record.attempts) == ("failed", 1)
    assert record.error == "PartywallError: quota refused: no room for emails"
    assert await mail.used() == 0


async def test_without_a_sidecar_a_job_is_put_off_and_neither_run_nor_refused(mail: Mail) -> None:
    @job(quota={"emails": 1}, on_refusal="fail")
    async def strict(ctx: Ctx) -> str:
        return "sent"

    handle = await mail.enqueue(strict, "it")
    at = await mail.work.now()
    async with Partywall("http://127.0.0.1:9", token=ADMIN_TOKEN) as nowhere:
        for _ in range(2):
            await mail.work.burst(strict, sidecar=nowhere, at=at, max_burst_jobs=1)
            record = await mail.record("it")
            assert (record.status, record.attempts) == ("deferred", 0)
            assert record.error.startswith("SidecarUnavailable: ")
            at = record.run_at
    await mail.burst(strict, at=at)
    assert await handle.result(timeout=1) == "sent"
    assert await mail.used() == 1


@pytest.mark.parametrize("token", [None, "wrong", "of a tenant"])
async def test_without_a_token_that_may_consume_jobs_are_put_off_and_the_worker_says_so_once(
    one: Sidecar,
    mail: Mail,
    token: str | None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.delenv("PARTYWALL_TOKEN", raising=False)
    if token == "of a tenant":
        async with one.client() as client:
            token = (await new_token(client, f"tenant:{mail.tenant}"))["token"]
    for nth in range(2):
        await mail.enqueue(send, f"{nth}")
    at = await mail.work.now()
    denied = Partywall(one.url, token=token)
    await mail.work.burst(send, sidecar=denied, at=at, max_burst_jobs=2)
    await denied.aclose()
    for nth in range(2):
        record = await mail.record(f"{nth}")
        assert (record.status, record.attempts) == ("deferred", 0)
        at = max(at, record.run_at)
    (said,) = [one for one in caplog.messages if "token of scope host" in one]
    assert said.startswith("jobs with a quota are put off until this worker has a token")
    await mail.burst(send, at=at)
    assert (await mail.record("0")).status == (await mail.record("1")).status == "succeeded"


async def test_what_is_owed_stays_owed_while_the_worker_has_a_wrong_token(
    one: Sidecar, mail: Mail
) -> None:
    never = job(quota={"emails": 1}, max_tries=1)(send_of())
    await mail.enqueue(never, "it")

    class Revoked(Partywall):
        async def try_consume(self, *args: Any, **options: Any) -> Any:
            return await mail.partywall.try_consume(*args, **options)

    revoked = Revoked(one.url, token="wrong")
    await mail.work.burst(never, sidecar=revoked, on_job_start=refuse)
    await revoked.aclose()
    assert (await mail.record("it")).status == "dead"
    assert await mail.used() == 1
    await mail.burst(never)
    assert await mail.used() == 0


async def test_a_quota_that_there_is_not_is_an_error_of_the_job(mail: Mail) -> None:
    @job(quota={"stamps": 1}, max_tries=2, backoff=0)
    async def stamp(ctx: Ctx) -> None:
        raise AssertionError("it must not run")

    await mail.enqueue(stamp, "it")
    await mail.burst(stamp)
    record = await mail.record("it")
    assert (record.status, record.attempts) == ("dead", 2)
    assert "stamps" in record.error


@pytest.mark.parametrize("error", [OSError, GiveUp])
async def test_a_job_that_ran_and_failed_has_used_its_items(
    mail: Mail, error: type[Exception]
) -> None:
    @job(quota={"emails": 1}, max_tries=2, backoff=0)
    async def fail(ctx: Ctx) -> None:
        raise error("no route")

    await mail.enqueue(fail, "it")
    await mail.burst(fail)
    assert await mail.used() == 1


async def test_a_job_gives_its_items_back_by_saying_so(mail: Mail) -> None:
    @job(quota={"emails": 1, "calls": 1}, backoff=0)
    async def changes_its_mind(ctx: Ctx) -> None:
        if ctx["job_try"] == 1:
            raise Retry
        raise GiveBack("the address is gone")

    await mail.enqueue(changes_its_mind, "it")
    await mail.burst(changes_its_mind)
    record = await mail.record("it")
    assert (record.status, record.error) == ("failed", "GiveBack: the address is gone")
    assert (await mail.used(), await mail.used("calls")) == (0, 0)


async def refuse(ctx: Ctx) -> None:
    raise ConnectionError("no database")


async def test_items_of_a_job_that_never_ran_go_back_and_are_taken_anew_if_it_is_revived(
    mail: Mail,
) -> None:
    @job(quota={"emails": 1}, max_tries=2, backoff=0)
    async def never(ctx: Ctx) -> str:
        return "sent"

    handle = await mail.enqueue(never, "it")
    for _ in range(2):
        await mail.burst(never, on_job_start=refuse)
        assert (await mail.record("it")).status == "dead"
        assert await mail.used() == 0
        await mail.work.queue.retry(mail.tenant, "it")
    await mail.burst(never)
    assert await handle.result(timeout=1) == "sent"
    assert await mail.used() == 1


async def test_a_revived_job_that_ran_before_has_its_items_still(mail: Mail) -> None:
    fails = True

    @job(quota={"emails": 1}, max_tries=1)
    async def flaky(ctx: Ctx) -> str:
        if fails:
            raise OSError("no route")
        return "sent"

    await mail.enqueue(flaky, "it")
    await mail.burst(flaky)
    fails = False
    await mail.work.queue.retry(mail.tenant, "it")
    await mail.burst(flaky, on_job_start=refuse)
    assert await mail.used() == 1  # what it was given back for would be its first life
    await mail.work.queue.retry(mail.tenant, "it")
    await mail.burst(flaky)
    assert (await mail.record("it")).status == "succeeded"
    assert await mail.used() == 1


async def test_items_of_a_job_that_expired_before_it_ran_go_back(mail: Mail) -> None:
    slow_start = job(quota={"emails": 1}, backoff=100)(send_of())
    await mail.enqueue(slow_start, "it", _expires=60)
    at = await mail.work.now()
    await mail.once(slow_start, at=at, on_job_start=refuse)
    assert await mail.used() == 1
    assert (await mail.record("it")).status == "retrying"
    await mail.burst(slow_start, at=at + 200_000)
    record = await mail.record("it")
    assert (record.status, record.error) == ("failed", "JobExecutionFailed: job expired")
    assert await mail.used() == 0


def send_of() -> Any:
    async def sends(ctx: Ctx) -> str:
        return "sent"

    return sends


@pytest.mark.parametrize("how", ["cancel", "purge"])
async def test_items_of_a_job_cancelled_before_it_ran_go_back(mail: Mail, how: str) -> None:
    slow_start = job(quota={"emails": 1}, backoff=100)(send_of())
    await mail.enqueue(slow_start, "it")
    await mail.once(slow_start, on_job_start=refuse)
    assert await mail.used() == 1
    if how == "cancel":
        await mail.work.queue.cancel(mail.tenant, "it")
    else:
        assert await mail.work.queue.purge(mail.tenant) == 1
    await mail.burst(slow_start)
    assert await mail.used() == 0


async def test_items_of_a_job_cancelled_while_it_ran_are_used(mail: Mail) -> None:
    held = Held()
    function = job(quota={"emails": 1})(held.function())
    handle = await mail.enqueue(function, "it")
    async with mail.work.running(function, sidecar=mail.partywall):
        await held.running()
        assert await handle.abort(timeout=20, poll_delay=0.01)
    assert await mail.used() == 1


async def test_a_job_aborted_while_it_asks_for_its_items_gives_them_back(mail: Mail) -> None:
    asked, go = asyncio.Event(), asyncio.Event()

    class Slow(Partywall):
        async def try_consume(self, *args: Any, **options: Any) -> Any:
            asked.set()
            await go.wait()
            return await mail.partywall.try_consume(*args, **options)

        async def release(self, *args: Any, **options: Any) -> Any:
            return await mail.partywall.release(*args, **options)

    held = Held()
    function = job(quota={"emails": 1})(held.function())
    handle = await mail.enqueue(function, "it")
    async with mail.work.running(function, sidecar=Slow()) as worker:
        await asked.wait()
        (one_try,) = worker._tries.values()
        aborting = asyncio.create_task(handle.abort(timeout=20, poll_delay=0.01))
        while one_try._reason is None:  # noqa: ASYNC110 - nothing tells of it
            await asyncio.sleep(0.01)
        assert await mail.used() == 0
        go.set()
        assert await aborting
    assert not held.began
    assert await mail.used() == 0


async def test_two_jobs_of_one_id_after_each_other_each_take_theirs(mail: Mail) -> None:
    for _ in range(2):
        await mail.enqueue(send, "it")
        await mail.burst(send, keep_result=0)
    assert await mail.used() == 2


async def test_a_worker_without_quotas_asks_no_sidecar(work: Work) -> None:
    handle = await work.enqueue(send_of())
    worker = await work.burst(send_of())
    assert await handle.result(timeout=1) == "sent"
    assert worker._sidecar is None
