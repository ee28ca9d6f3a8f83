"""The queue's Redis as the sidecar opens it: least privileges, and no cluster."""

import re
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import redis
from arq import cron

from partywall import Partywall
from partywall_service.embedded import ValkeyServer
from partywall_service.jobs.connect import answers, can_queue, clear, open_queue
from partywall_service.jobs.kept import KeptPolicies
from partywall_service.jobs.metrics import JobMetrics
from partywall_workers import FairWorker, job
from partywall_workers.errors import QueueUnavailable
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.scripts import Outcome
from partywall_workers.usage import JobUsage

ROOT = Path(__file__).parents[2]
OPERATING = ROOT / "docs" / "operating.md"
SCRIPTS = ROOT / "workers" / "partywall_workers" / "lua"

(ACL,) = re.findall(r"^ACL SETUSER .*$", OPERATING.read_text(), re.MULTILINE)


def test_the_least_privileges_that_are_documented_are_all_that_scripts_call() -> None:
    called = {
        command.lower()
        for file in SCRIPTS.rglob("*.lua")
        for command in re.findall(r"redis\.call\('(\w+)'", file.read_text())
    }
    assert called - set(re.findall(r"\+(\w+)", ACL)) == set()


async def test_with_the_least_privileges_that_are_documented_jobs_work(
    own_valkey: ValkeyServer,
) -> None:
    with redis.Redis.from_url(own_valkey.url) as admin:
        admin.execute_command(*ACL.replace(">SECRET", ">secret").split())
    path = own_valkey.url.removeprefix("unix://")
    url = f"unix://partywall:secret@{path}"
    async with open_queue(url, prefix="pw", keep=60) as queue:
        kept = KeptPolicies(queue.redis)
        assert await answers(queue)
        await queue.enqueue("acme", "f", job_id="one")
        await queue.enqueue("acme", "f", job_id="two", defer_by=60)
        assert await queue.wanted(timeout=0.01) == ["acme"]
        await queue.set_policies({"acme": JobPolicy(tier="free", rates=((9, 60),))})
        assert await queue.wanted(timeout=0.01) == []
        assert [tenant async for tenant in queue.policies()] == ["acme"]
        assert set(await kept.known(["acme", "beta"])) == {"acme"}
        await kept.note({"acme": 5.0, "beta": None})
        assert await kept.ended(9.0) == (["acme"], None)
        scripts = queue.redis.scripts
        claims = await scripts.claim(9, lease=9000, keep=9000, costs=b"{}", lanes=["default"])
        (job,) = claims.jobs
        assert await scripts.renew(9000, [(job.ref, job.fence)]) == ["renewed"]
        dead = Outcome(job.ref, job.fence, "dead", keep=9000, error="E: x", traceback="…")
        assert await scripts.release([dead]) == [True]
        assert (await queue.retry("acme", "one")).status == "queued"
        assert (await queue.cancel("acme", "one")).status == "cancelled"
        assert await queue.pause("acme")
        assert not await queue.resume("acme")
        assert await queue.purge("acme") == 1
        for status in (None, "dead", "running", "cancelled"):
            await queue.list("acme", status=status)  # type: ignore[arg-type] # of a literal's words
        assert (await JobMetrics(queue).families())[0].samples[0].value == 1
        assert await queue.functions() == frozenset()
        usage = JobUsage(queue.redis)
        assert {point.tenant for point in await usage.held()} == {"acme"}
        assert [points async for points in usage.closed()] in ([], [ANY])
        await usage.forget(await usage.held())
        assert [one["kind"] async for one in queue.export("acme")][:2] == ["job_queue", "job"]
        await clear(queue, "acme")
        assert [one async for one in queue.export("acme")] == []


async def test_with_the_least_privileges_that_are_documented_a_worker_works(
    own_valkey: ValkeyServer, caplog: pytest.LogCaptureFixture
) -> None:
    with redis.Redis.from_url(own_valkey.url) as admin:
        admin.execute_command(*ACL.replace(">SECRET", ">secret").split())
    url = f"unix://partywall:secret@{own_valkey.url.removeprefix('unix://')}"

    @job(quota={"emails": 1}, name="send")  # so that it looks for debts
    async def send(ctx: dict[str, Any]) -> None:
        raise AssertionError("it has no job")

    async def tick(ctx: dict[str, Any]) -> str:
        waiting = await ctx["redis"].enqueue_job("send", _tenant="acme", _defer_by=60)
        await waiting.abort(timeout=9)
        return str(await waiting.status())

    async with Partywall("http://127.0.0.1:9", token="t") as sidecar:
        worker = FairWorker(
            [send],
            cron_jobs=[cron(tick, name="tick", run_at_startup=True, keep_result=60)],
            redis_url=url,
            sidecar=sidecar,
            burst=True,
            handle_signals=False,
        )
        try:
            await worker.async_run()
        finally:
            await worker.close()
        assert worker.jobs_complete >= 1  # a minute may have begun meanwhile
        assert worker.jobs_failed == 0
    assert "permission" not in caplog.text.lower()


async def test_a_cluster_says_what_is_needed_instead() -> None:
    url = "redis+cluster://127.0.0.1:1"
    assert not can_queue(url)
    assert can_queue("rediss+sentinel://one:1,two:2/primary")
    async with open_queue(url, prefix="pw", keep=60) as queue:
        for call in (queue.enqueue("acme", "f"), queue.get("acme", "one"), queue.list("acme")):
            with pytest.raises(QueueUnavailable, match="PARTYWALL_JOBS_REDIS_URL must name one"):
                await call
        await clear(queue, "acme")  # there is nothing of it
        with pytest.raises(QueueUnavailable):
            await queue.erase("acme")
        assert await answers(queue)  # nothing that was there is failing


async def test_a_server_that_is_gone_does_not_answer(own_valkey: ValkeyServer) -> None:
    async with open_queue(own_valkey.url, prefix="pw", keep=60) as queue:
        assert await answers(queue)
        own_valkey.stop()
        assert not await answers(queue)
        (up,) = await JobMetrics(queue).families()
        assert (up.name, up.samples[0].value) == ("partywall_jobs_up", 0)


async def test_what_is_told_by_tier_is_what_happened(jobs_queue: FairQueue) -> None:
    await jobs_queue.set_policies({"acme": JobPolicy(tier="pro"), "new": JobPolicy(tier="free")})
    for tenant in ("acme", "acme", "acme", "stranger"):
        await jobs_queue.enqueue(tenant, "f")
    scripts = jobs_queue.redis.scripts
    claims = await scripts.claim(2, lease=9000, keep=9000, costs=b"{}", lanes=["default"])
    first, second = (job for job in claims.jobs if job.tenant in ("acme", "stranger"))
    await scripts.release([Outcome(first.ref, first.fence, "succeeded", keep=9000)])
    families = await JobMetrics(jobs_queue).families()
    told = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }
    tiers = {"acme": "pro", "stranger": "_unknown"}
    assert told["partywall_jobs_claims_total", tiers[first.tenant]] >= 1
    assert told["partywall_jobs_finished_total", tiers[first.tenant], "succeeded"] == 1
    assert told["partywall_jobs_running", tiers[second.tenant]] == 1
    assert sum(told.get(("partywall_jobs_queued", tier), 0) for tier in tiers.values()) == 2
    assert told["partywall_jobs_tenants",] == 2
    assert told["partywall_jobs_workers",] == 0
