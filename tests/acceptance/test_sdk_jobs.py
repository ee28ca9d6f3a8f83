"""The SDK's jobs, each story told by a real sidecar with a real worker, and by the fake one."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import httpx
import pytest

from partywall import (
    Conflict,
    Forbidden,
    InvalidRequest,
    JobCancelled,
    JobFailed,
    Partywall,
    QueueFull,
    QueueState,
    SyncPartywall,
    UnknownJob,
    UnknownTenant,
    current_tenant,
)
from partywall.testing import FakeSidecar
from partywall_workers import FairRedis, FairWorker, GiveUp, job
from partywall_workers.keys import queue_name
from tests.acceptance.asking import fresh_tenant, new_token
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import Sidecar

QUOTAS = """
[tiers.free]
features = ["analytics"]

[tiers.free.quotas]
emails = 5

[tiers.free.jobs]
max_queued = 3
"""


async def echo(ctx: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
    tenant = current_tenant()
    return [tenant.id, tenant.tier, tenant.features, ctx["tenant"], ctx["job_try"], args, kwargs]


@job(name="broken", max_tries=1)
async def breaks(ctx: dict[str, Any]) -> None:
    raise ValueError("no such address")


async def gives_up(ctx: dict[str, Any]) -> None:
    raise GiveUp("enough")


@job(backoff=0.001)
async def at_second_try(ctx: dict[str, Any]) -> int:
    if ctx["job_try"] == 1:
        raise ConnectionError
    return int(ctx["job_try"])


@job(quota={"emails": 3}, on_refusal="fail")
async def send(ctx: dict[str, Any]) -> None:
    """Sends three."""


async def returns_a_set(ctx: dict[str, Any]) -> Any:
    return {"words": {"a"}}


FUNCTIONS = [echo, breaks, gives_up, at_second_try, send, returns_a_set]


class Place(NamedTuple):
    """A sidecar of either kind: its client, what runs its jobs, and bare HTTP."""

    pw: Partywall
    work: Callable[[], Awaitable[Any]]
    http: httpx.AsyncClient


@pytest.fixture(scope="module")
def one(test_run: TestRun) -> Iterator[Sidecar]:
    """A sidecar for all tests here; each brings tenants of its own."""
    with shared_sidecars(test_run, QUOTAS) as (sidecar,):
        yield sidecar


@pytest.fixture(scope="module")
def token(one: Sidecar) -> str:
    """A host app's."""

    async def make() -> str:
        async with one.client() as admin:
            return str((await new_token(admin, "host"))["token"])

    return asyncio.run(make())


@asynccontextmanager
async def a_real_one(one: Sidecar, token: str) -> AsyncIterator[Place]:
    queue = queue_name(one.env["PARTYWALL_KEY_PREFIX"])

    async def work() -> None:
        redis = FairRedis.from_url(one.env["PARTYWALL_REDIS_URL"], queue_name=queue)
        worker = FairWorker(
            FUNCTIONS, redis_pool=redis, sidecar=pw, burst=True, handle_signals=False
        )
        await worker.main()
        await worker.close()

    async with Partywall(one.url, token) as pw, one.client(token) as http:
        yield Place(pw, work, http)


@asynccontextmanager
async def a_fake_one() -> AsyncIterator[Place]:
    tiers: Any = {
        "free": {
            "features": ["analytics"],
            "quotas": {"emails": 5},
            "jobs": {"max_queued": 3},
        }
    }

    async def work() -> None:
        while await sidecar.run_jobs(FUNCTIONS):
            sidecar.advance(0.001)

    async with (
        FakeSidecar(tiers, default_tier=None) as sidecar,
        Partywall() as pw,
        httpx.AsyncClient(transport=sidecar._line, base_url="http://sidecar") as http,
    ):
        yield Place(pw, work, http)


@pytest.fixture(params=["real", "fake"])
async def at(request: pytest.FixtureRequest, one: Sidecar, token: str) -> AsyncIterator[Place]:
    """A sidecar of each kind."""
    async with a_real_one(one, token) if request.param == "real" else a_fake_one() as place:
        yield place


@pytest.fixture
async def acme(at: Place) -> str:
    tenant = fresh_tenant()
    await at.pw.put_tenant(tenant, tier="free")
    return tenant


async def test_a_job_runs_with_its_arguments_in_its_tenants_context(at: Place, acme: str) -> None:
    given = (1, "ü", None, [2.5], {"a b": [True]})
    job = await at.pw.enqueue(acme, "echo", *given, to="a@b.c")
    assert await job.status() == "queued"
    await at.work()
    assert await job.result(timeout=30) == [
        *(acme, "free", ["analytics"], acme, 1, list(given)),
        {"to": "a@b.c"},
    ]
    info = await job.info()
    assert (info.status, info.function, info.attempts, info.error) == ("succeeded", "echo", 1, None)
    assert info.started_at is not None
    assert info.finished_at is not None
    assert info.queued_at <= info.started_at <= info.finished_at
    with pytest.raises(Conflict, match="succeeded"):
        await job.cancel()


async def test_what_fails_dies_or_gives_up_says_why(at: Place, acme: str) -> None:
    dead = await at.pw.enqueue(acme, "broken")
    failed = await at.pw.enqueue(acme, "gives_up")
    retried = await at.pw.enqueue(acme, "at_second_try")
    await at.work()
    with pytest.raises(JobFailed, match=r"^ValueError: no such address$") as raised:
        await dead.result(timeout=30)
    assert raised.value.info.status == "dead"
    assert "in breaks\n" in (raised.value.info.traceback or "")
    with pytest.raises(JobFailed, match=r"^GiveUp: enough$") as raised:
        await failed.result(timeout=30)
    assert raised.value.info.status == "failed"
    assert await retried.result(timeout=30) == 2
    revived = await dead.retry()
    assert (revived.status, revived.attempts, revived.error) == ("queued", 0, None)
    with pytest.raises(Conflict, match="queued"):
        await dead.retry()


async def test_a_result_that_is_no_json_fails_the_job(at: Place, acme: str) -> None:
    job = await at.pw.enqueue(acme, "returns_a_set")
    await at.work()
    with pytest.raises(JobFailed, match=r"^unable to serialize result: result\.words: expected"):
        await job.result(timeout=30)


async def test_a_jobs_quota_is_consumed_before_it_runs(at: Place, acme: str) -> None:
    first, second = [await at.pw.enqueue(acme, "send") for _ in range(2)]
    await at.work()
    assert {await first.status(), await second.status()} == {"succeeded", "failed"}
    [failed] = [info async for info in at.pw.list_jobs(acme, "failed")]
    assert failed.error == "PartywallError: quota refused: no room for emails"
    assert (await at.pw.quota(acme, "emails")).used == 3


async def test_a_queue_is_full_at_its_cap_paused_listed_and_purged(at: Place, acme: str) -> None:
    pw = at.pw
    assert await pw.pause_jobs(acme) == QueueState(acme, paused=True, purged=0)
    first = await pw.enqueue(acme, "echo", _job_id="first:1")
    await pw.enqueue(acme, "echo", _defer_by=3600)
    last = await pw.enqueue(acme, "echo", _priority=9)
    with pytest.raises(QueueFull, match="3 jobs waiting") as full:
        await pw.enqueue(acme, "echo")
    assert full.value.retry_after == 1
    assert (await pw.enqueue(acme, "echo", _job_id="first:1")).id == first.id
    await at.work()
    jobs = [info async for info in pw.list_jobs(acme)]
    assert [info.status for info in jobs] == ["queued", "deferred", "queued"]
    assert (jobs[0].id, jobs[0].priority, jobs[-1].id) == (last.id, 9, "first:1")
    assert (await last.cancel()).status == "cancelled"
    assert (await last.cancel()).error == "cancelled"
    with pytest.raises(JobCancelled):
        await last.result(timeout=30)
    assert await pw.purge_jobs(acme) == QueueState(acme, paused=True, purged=2)
    assert [info.id async for info in pw.list_jobs(acme, "cancelled")] == [one.id for one in jobs]
    assert await pw.resume_jobs(acme) == QueueState(acme, paused=False, purged=0)


async def test_one_key_is_one_job_and_one_body(at: Place, acme: str) -> None:
    first = await at.pw.enqueue(acme, "echo", 1, _idempotency_key="k")
    assert (await at.pw.enqueue(acme, "echo", 1, _idempotency_key="k")).id == first.id
    with pytest.raises(Conflict, match="used for another request"):
        await at.pw.enqueue(acme, "echo", 2, _idempotency_key="k")
    assert len([info async for info in at.pw.list_jobs(acme)]) == 1


async def test_nobodys_tenant_and_another_tenants_job_are_unknown(at: Place, acme: str) -> None:
    other = fresh_tenant()
    with pytest.raises(UnknownTenant):
        await at.pw.enqueue(other, "echo")
    await at.pw.put_tenant(other, tier="free")
    job = await at.pw.enqueue(other, "echo", _job_id="one")
    for call in (at.pw.get_job, at.pw.cancel_job, at.pw.retry_job):
        with pytest.raises(UnknownJob):
            await call(acme, job.id)
    assert await job.status() == "queued"


async def test_what_is_refused_is_refused_alike(at: Place, acme: str) -> None:
    both = {"function": "echo", "defer_by": 1, "defer_until": "2035-01-01T00:00:00Z"}
    for method, path, body, slug, field in [
        ("POST", "", {}, "invalid-request", "function"),
        ("POST", "", {"function": ""}, "invalid-request", "function"),
        ("POST", "", {"function": "echo", "more": 1}, "invalid-request", "more"),
        ("POST", "", {"function": "echo", "priority": 10}, "invalid-request", "priority"),
        ("POST", "", {"function": "echo", "args": {}}, "invalid-request", "args"),
        ("POST", "", {"function": "echo", "job_id": "a b"}, "invalid-request", "job_id"),
        ("POST", "", {"function": "echo", "job_id": "purge"}, "invalid-request", "job_id"),
        ("POST", "", {"function": "echo", "defer_by": -1}, "invalid-request", "defer_by"),
        ("POST", "", both, "invalid-request", "defer_until"),
        ("GET", "?status=gone", None, "invalid-request", "status"),
        ("GET", "/nobodys", None, "unknown-job", None),
        ("POST", "/nobodys/retry", None, "unknown-job", None),
        ("DELETE", "/nobodys", None, "unknown-job", None),
    ]:
        answer = await at.http.request(method, f"/v1/tenants/{acme}/jobs{path}", json=body)
        problem = answer.json()
        faults = [fault["field"] for fault in problem.get("errors", [])]
        assert problem["type"] == f"urn:partywall:problem:{slug}", (method, path, body)
        assert faults == ([] if field is None else [field]), (method, path, body)


# Of a real sidecar alone


@pytest.fixture
async def real(one: Sidecar, token: str) -> AsyncIterator[Place]:
    async with a_real_one(one, token) as place:
        yield place


async def test_a_function_that_no_worker_has_is_refused_once_workers_are_known(
    real: Place,
) -> None:
    tenant = fresh_tenant()
    await real.pw.put_tenant(tenant, tier="free")
    await real.pw.enqueue(tenant, "echo")
    await real.work()
    with pytest.raises(InvalidRequest, match="'ehco'") as raised:
        await real.pw.enqueue(tenant, "ehco")
    assert [field for field, _ in raised.value.errors] == ["function"]


async def test_a_tenants_own_token_reads_its_jobs_without_tracebacks_and_changes_none(
    real: Place, one: Sidecar
) -> None:
    tenant, other = fresh_tenant(), fresh_tenant()
    for name in (tenant, other):
        await real.pw.put_tenant(name, tier="free")
    dead = await real.pw.enqueue(tenant, "broken")
    await real.pw.enqueue(other, "echo", _job_id=dead.id)
    await real.work()
    async with one.client() as admin:
        token = (await new_token(admin, f"tenant:{tenant}"))["token"]
    async with Partywall(one.url, token) as own:
        info = await own.get_job(tenant, dead.id)
        assert (info.status, info.error) == ("dead", "ValueError: no such address")
        assert info.traceback is None
        calls: list[Callable[[], Awaitable[Any]]] = [
            lambda: own.enqueue(tenant, "echo"),
            lambda: own.retry_job(tenant, dead.id),
            lambda: own.purge_jobs(tenant),
            lambda: own.get_job(other, dead.id),
        ]
        for call in calls:
            with pytest.raises(Forbidden):
                await call()


async def test_the_synchronous_client_waits_for_a_job_that_a_worker_runs(
    real: Place, one: Sidecar
) -> None:
    tenant = fresh_tenant()
    await real.pw.put_tenant(tenant, tier="free")

    with SyncPartywall(one.url, one.admin_token) as pw:
        job = await asyncio.to_thread(pw.enqueue, tenant, "echo", 7)
        waiting = asyncio.create_task(asyncio.to_thread(job.result, timeout=30))
        await real.work()
        assert (await waiting)[5] == [7]
