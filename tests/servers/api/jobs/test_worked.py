"""What the API tells of jobs that a real worker ran."""

from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from partywall_workers import job
from partywall_workers.errors import GiveUp
from partywall_workers.queue import FairQueue
from partywall_workers.worker import FairWorker
from tests.servers.api.jobs.queues import BASE, SEND, enqueued, listed
from tests.support.api import Caller, fields_of, problem_of

Ctx = dict[str, Any]


async def work(queue: FairQueue, *functions: Callable[..., Coroutine[Any, Any, Any]]) -> None:
    """Runs what is queued, by a worker that ends when nothing is left."""
    worker = FairWorker(
        functions, redis_pool=queue.redis, queue_name=queue.name, burst=True, handle_signals=False
    )
    await worker.main()


async def echo(ctx: Ctx, value: Any) -> Any:
    return value


async def nest(ctx: Ctx, depth: int) -> Any:
    value: Any = None
    for _ in range(depth):
        value = [value]
    return value


async def give_up(ctx: Ctx) -> None:
    raise GiveUp("no such address")


@job(max_tries=1)
async def fail(ctx: Ctx) -> None:
    raise OSError("no route to \udcff")


async def test_a_result_is_whatever_json_carries(admin: Caller, jobs_queue: FairQueue) -> None:
    values = [None, True, 2**70, 1.5, "", "é\n\x00", [], {}, [{"a": [None]}], {"": {"": 0}}]
    for place, value in enumerate(values):
        await enqueued(admin, f"{place}", function="echo", args=[value])
    await enqueued(admin, "deep", function="nest", args=[100])
    await work(jobs_queue, echo, nest)
    for place, value in enumerate(values):
        told = (await admin.get(f"{BASE}/{place}")).json()
        assert (told["status"], told["attempts"], told["error"]) == ("succeeded", 1, None)
        assert told["result"] == value
        assert told["queued_at"] <= told["started_at"] <= told["finished_at"]
    assert len(await listed(admin, status="succeeded")) == len(values) + 1
    assert (await admin.get(f"{BASE}/deep")).content.count(b"[") == 100
    problem_of(await admin.delete(f"{BASE}/0"), 409, "conflict")


async def test_a_result_that_is_no_json_is_said_so(admin: Caller, jobs_queue: FairQueue) -> None:
    await enqueued(admin, "deep", function="nest", args=[900])
    await work(jobs_queue, nest)
    told = (await admin.get(f"{BASE}/deep")).json()
    assert told["status"] == "failed"
    assert "result" in told["error"]
    assert told["result"] is None


async def test_a_traceback_is_for_operators(admin: Caller, jobs_queue: FairQueue) -> None:
    await enqueued(admin, "gone", function="give_up")
    await work(jobs_queue, give_up)
    told = (await admin.get(f"{BASE}/gone")).json()
    assert (told["status"], told["error"]) == ("failed", "GiveUp: no such address")
    assert "give_up" in told["traceback"]
    acme, host = await admin.caller("tenant:acme"), await admin.caller("host")
    assert (await host.get(f"{BASE}/gone")).json() == told
    assert (await host.get(BASE)).json()["jobs"] == [told]
    del told["traceback"]
    assert (await acme.get(f"{BASE}/gone")).json() == told
    assert (await acme.get(BASE)).json()["jobs"] == [told]


async def test_a_dead_job_is_revived(
    admin: Caller, jobs_queue: FairQueue, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL", "arq.worker")  # pytest-xdist cannot carry what it says, either
    await enqueued(admin, "x", function="fail")
    await work(jobs_queue, fail)
    dead = (await admin.get(f"{BASE}/x")).json()
    assert (dead["status"], dead["attempts"]) == ("dead", 1)
    assert dead["error"] == "OSError: no route to \\udcff"  # which UTF-8 cannot carry as it is
    assert await listed(admin, status="dead") == ["x"]

    first = await admin.post(f"{BASE}/x/retry", key="k")
    assert first.status_code == 200
    assert (first.json()["status"], first.json()["attempts"]) == ("queued", 0)
    problem_of(await admin.post(f"{BASE}/x/retry"), 409, "conflict")
    assert (await admin.post(f"{BASE}/x/retry", key="k")).content == first.content
    await work(jobs_queue, fail)
    assert await listed(admin, status="dead") == ["x"]


async def test_a_function_that_no_worker_has_is_refused(
    admin: Caller, jobs_queue: FairQueue
) -> None:
    assert (await admin.post(BASE, SEND)).status_code == 202  # no worker is known yet
    await admin.post(f"{BASE}/purge")
    await work(jobs_queue, echo)
    answer = await admin.post(BASE, SEND)
    assert fields_of(answer) == ["function"]
    assert "'send_email'" in answer.json()["detail"]
