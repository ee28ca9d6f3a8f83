"""Jobs by the client, against the fake sidecar: what is asked, answered and raised."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from partywall import (
    Conflict,
    Job,
    JobCancelled,
    JobFailed,
    JobInfo,
    NotFound,
    Partywall,
    PartywallMiddleware,
    QueueFull,
    QueueState,
    SidecarUnavailable,
    UnknownJob,
    UnknownTenant,
)
from partywall.errors import Denied, SidecarError
from partywall.tenants import FromHeader
from partywall.testing import FakeSidecar
from partywall.transport import Backoff
from tests.support.starlette_client import TestClient
from tests.unit.sdk.losing import Losing

TIERS: Any = {"free": {"jobs": {"max_queued": 3}}, "pro": {"jobs": {"max_queued": "unlimited"}}}


async def double(ctx: dict[str, Any], number: int) -> int:
    return 2 * number


async def fail(ctx: dict[str, Any]) -> None:
    raise ValueError("no such address")


# Enqueueing


async def test_a_job_is_enqueued_with_what_it_is_called_with() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        job = await pw.enqueue("acme", "send_email", 1, "two", to="a@b.c", tenant="t", self=None)
        assert isinstance(job, Job)
        assert job.tenant == "acme"
        assert await job.status() == "queued"
        [seen] = sidecar.jobs("acme")
        assert (seen.id, seen.function, seen.priority) == (job.id, "send_email", 5)
        assert (seen.args, seen.kwargs) == (
            (1, "two"),
            {"to": "a@b.c", "tenant": "t", "self": None},
        )
        assert repr(job) == f"<Job {job.id!r} of 'acme'>"


async def test_its_record_has_all_there_is_to_know() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        job = await pw.enqueue("acme", "fail", _job_id="it:1", _priority=9)
        queued_at = datetime(2030, 1, 1, tzinfo=UTC)
        assert await job.info() == JobInfo(
            id="it:1",
            tenant="acme",
            function="fail",
            status="queued",
            priority=9,
            attempts=0,
            queued_at=queued_at,
            run_at=queued_at,
            started_at=None,
            finished_at=None,
            error=None,
            result=None,
        )
        sidecar.advance(5)
        await sidecar.run_jobs([fail], max_tries=1)
        info = await pw.get_job("acme", "it:1")
        assert (info.status, info.attempts, info.finished) == ("dead", 1, True)
        assert info.error == "ValueError: no such address"
        assert info.traceback is not None
        assert "in fail\n" in info.traceback
        assert info.started_at == info.finished_at == queued_at + timedelta(seconds=5)


async def test_a_job_is_put_off_by_seconds_or_until_an_instant() -> None:
    begin = datetime(2030, 1, 1, tzinfo=UTC)
    plus_two = timezone(timedelta(hours=2))
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        for options, run_at in [
            ({"_defer_by": 1.5}, begin + timedelta(seconds=1.5)),
            ({"_defer_by": timedelta(minutes=1)}, begin + timedelta(minutes=1)),
            (
                {"_defer_until": datetime(2030, 1, 1, 4, tzinfo=plus_two)},
                begin + timedelta(hours=2),
            ),
        ]:
            info = await (await pw.enqueue("acme", "double", **options)).info()
            assert (info.status, info.run_at) == ("deferred", run_at)
        sidecar.advance(1.5)
        statuses = [info.status async for info in pw.list_jobs("acme")]
        assert statuses == ["deferred", "deferred", "queued"]


async def test_an_id_that_is_kept_is_the_job_that_has_it() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        first = await pw.enqueue("acme", "double", 1, _job_id="one")
        again = await pw.enqueue("acme", "double", 2, _job_id="one")
        other = await pw.enqueue("globex", "double", 3, _job_id="one")
        assert (first.id, again.id, other.tenant) == ("one", "one", "globex")
        assert [job.args for job in sidecar.jobs()] == [(1,), (3,)]


async def test_a_repeated_key_is_the_same_job_and_another_body_is_a_conflict() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        first = await pw.enqueue("acme", "double", 1, _idempotency_key="k")
        assert (await pw.enqueue("acme", "double", 1, _idempotency_key="k")).id == first.id
        assert (await pw.enqueue("acme", "double", 1)).id != first.id
        with pytest.raises(Conflict, match="used for another request"):
            await pw.enqueue("acme", "double", 2, _idempotency_key="k")
        assert len(sidecar.jobs("acme")) == 2


async def test_a_full_queue_is_a_denial_and_an_error_and_says_when_to_try_again() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        for _ in range(3):
            await pw.enqueue("acme", "double", 1)
        with pytest.raises(QueueFull, match="3 jobs waiting") as raised:
            await pw.enqueue("acme", "double", 1)
        assert isinstance(raised.value, Denied)
        assert isinstance(raised.value, SidecarError)
        assert raised.value.retry_after == 1.0
        await pw.enqueue("globex", "double", 1)
        sidecar.tenant("acme", tier="pro")
        await pw.enqueue("acme", "double", 1)


def test_a_full_queue_that_the_app_lets_through_is_answered_429() -> None:
    pw = Partywall()

    async def enqueue(request: Request) -> None:
        await pw.enqueue("acme", "double", 1)

    app = Starlette(routes=[Route("/", enqueue)])
    app.add_middleware(PartywallMiddleware, tenant=FromHeader("X-Tenant"), client=pw)
    with FakeSidecar({"free": {"limits": {"requests": "9/minute"}, "jobs": {"max_queued": 0}}}):
        answer = TestClient(app).get("/", headers={"X-Tenant": "acme"})
    assert answer.status_code == 429
    assert answer.headers["retry-after"] == "1"
    assert answer.json()["type"] == "urn:partywall:problem:queue-full"


async def test_nobodys_tenant_and_nobodys_job_are_errors_of_their_own() -> None:
    async with FakeSidecar(TIERS, default_tier=None) as sidecar, Partywall() as pw:
        with pytest.raises(UnknownTenant):
            await pw.enqueue("acme", "double")
        sidecar.tenant("acme", tier="free")
        sidecar.tenant("globex", tier="free")
        await pw.enqueue("globex", "double", 1, _job_id="one")
        job = pw.job("acme", "one")
        for call in (job.info, job.status, job.result, job.cancel, job.retry):
            with pytest.raises(UnknownJob, match="'acme' has no job 'one'") as raised:
                await call()
            assert isinstance(raised.value, NotFound)


@pytest.fixture
def losing(monkeypatch: pytest.MonkeyPatch) -> Losing:
    """A transport to a fake sidecar that loses answers; nothing waits before it tries again."""
    monkeypatch.setattr(Backoff, "delay", lambda self, failures: 0.0)
    with FakeSidecar(TIERS) as sidecar:
        return Losing(sidecar._line)


async def test_a_lost_answer_is_asked_for_again_and_nothing_is_done_twice(losing: Losing) -> None:
    async with Partywall("http://there", "t", transport=losing) as pw:
        job = await pw.enqueue("acme", "double", 1)
        assert [info.id async for info in pw.list_jobs("acme")] == [job.id]
        assert (await job.cancel()).status == "cancelled"
        await pw.enqueue("acme", "double", 2)
        assert (await pw.purge_jobs("acme")).purged == 1
        assert (await pw.pause_jobs("acme")).paused
    assert losing.keys[0] is not None
    assert losing.keys[0] == losing.keys[1]


# What becomes of it


class Patient(Partywall):
    """Does something else in its pauses than to wait."""

    def __init__(self, meanwhile: Callable[[int], Awaitable[Any]]) -> None:
        super().__init__()
        self.pauses: list[float] = []
        self.meanwhile = meanwhile

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        await self.meanwhile(len(self.pauses))


async def test_a_result_is_waited_for_in_pauses_from_50_ms_to_a_second() -> None:
    async def meanwhile(looks: int) -> None:
        if looks == 12:
            await sidecar.run_jobs([double])

    async with FakeSidecar(TIERS) as sidecar, Patient(meanwhile) as pw:
        job = await pw.enqueue("acme", "double", 21)
        assert await job.result() == 42
        assert len(pw.pauses) == 12
        assert (pw.pauses[0], pw.pauses[-1]) == (0.05, 1.0)
        assert pw.pauses == sorted(pw.pauses)
        assert await job.status() == "succeeded"
        assert await pw.job("acme", job.id).result() == 42
        assert len(pw.pauses) == 12


async def test_a_result_that_is_late_is_a_timeout_and_the_job_runs_on() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        job = await pw.enqueue("acme", "double", 1)
        with pytest.raises(TimeoutError, match=r"not finished within 0 s: queued"):
            await job.result(timeout=0)
        with pytest.raises(TimeoutError, match=r"not finished within 0\.1 s: queued"):
            await job.result(timeout=0.1)
        await sidecar.run_jobs([double])
        assert await job.result(timeout=30) == await job.result(timeout=0) == 2


async def test_the_last_look_comes_before_the_time_is_over() -> None:
    async def no_time_at_all(_: int) -> None:
        await asyncio.sleep(0)

    async with FakeSidecar(TIERS), Patient(no_time_at_all) as pw:
        job = await pw.enqueue("acme", "double", 1)
        with pytest.raises(TimeoutError):
            await job.result(timeout=0.2)
        assert min(pw.pauses) == 0.05
        assert max(pw.pauses) <= 0.15


async def test_a_look_that_is_not_answered_ends_with_the_wait() -> None:
    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            await asyncio.Event().wait()
            raise AssertionError

    async with Partywall("http://there", "t", transport=Silent(), timeout=60) as pw:
        with pytest.raises(TimeoutError, match=r"within 0\.05 s: no answer yet"):
            await pw.job("acme", "one").result(timeout=0.05)


async def test_a_job_that_failed_or_died_raises_with_its_error() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        dead = await pw.enqueue("acme", "fail")
        await sidecar.run_jobs([fail], max_tries=1)
        with pytest.raises(JobFailed, match=r"^ValueError: no such address$") as raised:
            await dead.result(timeout=1)
        assert raised.value.info == await dead.info()


async def test_a_cancelled_job_raises_and_does_not_cancel_who_waits() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        job = await pw.enqueue("acme", "double", 1)
        cancelled = await job.cancel()
        assert (cancelled.status, cancelled.finished) == ("cancelled", True)
        with pytest.raises(JobCancelled, match="was cancelled") as raised:
            await job.result()
        assert raised.value.info == cancelled
        assert not isinstance(raised.value, asyncio.CancelledError)


async def test_cancelling_twice_is_answered_alike_but_not_what_has_finished_otherwise() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        job = await pw.enqueue("acme", "double", 1)
        assert await job.cancel() == await pw.cancel_job("acme", job.id)
        done = await pw.enqueue("acme", "double", 1)
        await sidecar.run_jobs([double])
        with pytest.raises(Conflict, match="is succeeded"):
            await done.cancel()


async def test_only_a_dead_job_is_revived_and_has_all_its_tries_again() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        job = await pw.enqueue("acme", "fail")
        with pytest.raises(Conflict, match="only a dead one"):
            await job.retry()
        await sidecar.run_jobs([fail], max_tries=1)
        revived = await pw.retry_job("acme", job.id)
        assert (revived.status, revived.attempts, revived.error) == ("queued", 0, None)
        await sidecar.run_jobs({"fail": double}, max_tries=1)
        assert await job.status() == "dead"
        for _ in range(3):
            await pw.enqueue("acme", "double", 1)
        with pytest.raises(QueueFull):
            await job.retry()


async def test_an_outage_while_a_result_is_waited_for_is_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Backoff, "delay", lambda self, failures: 0.0)

    async def outage(_: int) -> None:
        sidecar.fail()

    async with FakeSidecar(TIERS) as sidecar, Patient(outage) as pw:
        job = await pw.enqueue("acme", "double", 1)
        with pytest.raises(SidecarUnavailable):
            await job.result(timeout=60)


# A tenant's queue


async def test_jobs_are_listed_newest_first_page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("partywall.jobs.methods.PAGE_SIZE", 2)
    async with FakeSidecar() as sidecar, Partywall() as pw:
        assert [info async for info in pw.list_jobs("acme")] == []
        for number in range(5):
            await pw.enqueue("acme", "double", number, _job_id=f"j{number}")
        await pw.enqueue("globex", "double", 1)
        assert [info.id async for info in pw.list_jobs("acme")] == ["j4", "j3", "j2", "j1", "j0"]
        await pw.cancel_job("acme", "j3")
        await pw.cancel_job("acme", "j0")
        assert [info.id async for info in pw.list_jobs("acme", "cancelled")] == ["j3", "j0"]
        seen = []
        async for info in pw.list_jobs("acme", "queued"):
            seen.append(info.id)
            await pw.cancel_job("acme", info.id)
        assert seen == ["j4", "j2", "j1"]
        assert len(sidecar.jobs()) == 6


async def test_a_paused_queue_takes_jobs_and_starts_none_until_it_is_resumed() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        assert await pw.pause_jobs("acme") == QueueState("acme", True, 0)
        job = await pw.enqueue("acme", "double", 1)
        assert await sidecar.run_jobs([double]) == []
        assert await pw.resume_jobs("acme") == QueueState("acme", False, 0)
        await sidecar.run_jobs([double])
        assert await job.status() == "succeeded"


async def test_a_purge_cancels_all_that_waits_and_says_how_many() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        done = await pw.enqueue("acme", "double", 1)
        await sidecar.run_jobs([double])
        await pw.pause_jobs("acme")
        await pw.enqueue("acme", "double", 1)
        await pw.enqueue("acme", "double", 1, _defer_by=60)
        other = await pw.enqueue("globex", "double", 1)
        assert await pw.purge_jobs("acme") == QueueState("acme", True, 2)
        assert await pw.purge_jobs("acme") == QueueState("acme", True, 0)
        assert await done.status() == "succeeded"
        assert await other.status() == "queued"


# What other sidecars may say


async def test_a_status_of_another_versions_is_an_unexpected_answer() -> None:
    transport = httpx.MockTransport(lambda request: httpx.Response(200, json={"status": "new"}))
    async with Partywall("http://there", "t", transport=transport) as pw:
        with pytest.raises(SidecarError, match="no Partywall sidecar of this version says"):
            await pw.get_job("acme", "one")
