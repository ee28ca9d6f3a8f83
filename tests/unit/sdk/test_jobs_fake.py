"""The jobs that a fake sidecar runs in a host app's own tests."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from arq import Retry, func

from partywall import ConfigurationError, Partywall, current_tenant
from partywall.testing import FakeSidecar, SeenJob
from partywall_workers.errors import GiveBack, GiveUp
from partywall_workers.job import job as declared

TIERS: Any = {
    "free": {"jobs": {"concurrency": 2, "max_queued": 100, "rate": "1/minute", "queue": "slow"}},
    "pro": {"extends": "free", "features": ["analytics"]},
}

QUOTAS: Any = {"free": {"quotas": {"emails": 5}}}


async def note(ctx: dict[str, Any], word: str = "") -> str:
    return f"{word} of {current_tenant()}"


async def test_jobs_run_in_their_tenants_context_with_arqs_ctx() -> None:
    seen: list[Any] = []

    async def look(ctx: dict[str, Any], *args: int, **kwargs: int) -> list[Any]:
        seen.append((ctx, args, kwargs, current_tenant()))
        return [1, {"a": None}]

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        sidecar.tenant("acme", tier="pro")
        await pw.enqueue("acme", "look", 1, two=2, _job_id="one")
        [ran] = await sidecar.run_jobs([look], ctx={"db": "a pool"})
        assert current_tenant(default=None) is None
    [(ctx, args, kwargs, tenant)] = seen
    assert (tenant.id, tenant.tier, tenant.features) == ("acme", "pro", ("analytics",))
    assert (args, kwargs) == ((1,), {"two": 2})
    assert callable(ctx.pop("redis").enqueue_job)
    assert ctx == {
        "db": "a pool",
        "job_id": "pw:jobs:acme:one",
        "job_try": 1,
        "enqueue_time": ran.queued_at,
        "score": round(ran.run_at.timestamp() * 1000),
        "tenant": "acme",
    }
    assert isinstance(ran, SeenJob)
    assert (ran.status, ran.result) == ("succeeded", [1, {"a": None}])


async def test_tenants_take_turns_and_a_tenants_jobs_go_by_priority() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        for number in range(3):
            await pw.enqueue("noisy", "note", f"{number}")
        await pw.enqueue("noisy", "note", "first", _priority=9)
        await pw.enqueue("quiet", "note", "only")
        ran = await sidecar.run_jobs([note])
        assert [job.result for job in ran] == [
            "first of noisy",
            "only of quiet",
            "0 of noisy",
            "1 of noisy",
            "2 of noisy",
        ]


async def test_only_one_tenants_jobs_run_where_that_is_said() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        for tenant in ("a", "b"):
            await pw.enqueue(tenant, "note")
        assert [job.tenant for job in await sidecar.run_jobs([note], tenant="b")] == ["b"]
        assert await sidecar.run_jobs([note], tenant="nobody") == []
        assert [job.status for job in sidecar.jobs()] == ["queued", "succeeded"]
        assert [job.status for job in sidecar.jobs("b")] == ["succeeded"]


async def test_what_is_not_due_or_whose_tenant_is_held_waits() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "note", "later", _defer_by=60)
        await pw.enqueue("held", "note")
        sidecar.suspend("held")
        assert await sidecar.run_jobs([note]) == []
        sidecar.advance(60)
        assert [job.result for job in await sidecar.run_jobs([note])] == ["later of acme"]
        sidecar.tenant("held", status="active")
        assert [job.tenant for job in await sidecar.run_jobs([note])] == ["held"]


async def test_what_a_job_enqueues_runs_in_the_same_go() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:

        async def parent(ctx: dict[str, Any]) -> None:
            await pw.enqueue(ctx["tenant"], "note", "child")

        await pw.enqueue("acme", "parent")
        assert [job.function for job in await sidecar.run_jobs([parent, note])] == [
            "parent",
            "note",
        ]


async def test_a_job_enqueues_by_its_ctx_as_with_arq() -> None:
    async def parent(ctx: dict[str, Any]) -> list[Any]:
        redis = ctx["redis"]
        made = [
            await redis.enqueue_job("note", "child", _job_id="one"),
            await redis.enqueue_job(note, "child", _job_id="one"),
            await redis.enqueue_job(note, "late", _tenant="other", _defer_by=60, _priority=9),
        ]
        return [job and job.job_id for job in made]

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "parent")
        first, child = await sidecar.run_jobs([parent, note])
        assert first.result[:2] == ["pw:jobs:acme:one", None]
        assert (child.id, child.result) == ("one", "child of acme")
        [late] = sidecar.jobs("other")
        assert (late.status, late.priority, late.args) == ("deferred", 9, ("late",))
        assert first.result[2] == f"pw:jobs:other:{late.id}"


async def test_what_a_job_cannot_enqueue_fails_it_as_it_would_an_app() -> None:
    async def parent(ctx: dict[str, Any], tenant: str, what: Any) -> None:
        await ctx["redis"].enqueue_job("note", {1, 2} if what else 1, _tenant=tenant)

    tiers: Any = {"free": {"jobs": {"max_queued": 1}}}
    async with FakeSidecar(tiers, default_tier=None) as sidecar, Partywall() as pw:
        for tenant in ("acme", "full"):
            sidecar.tenant(tenant, tier="free")
        await pw.enqueue("full", "note")
        await pw.pause_jobs("full")
        errors = []
        for args in [("full", None), ("nobody", None), ("acme", "a set"), ("a b", None)]:
            await pw.enqueue("acme", "parent", *args)
            [ran] = await sidecar.run_jobs([parent], max_tries=1)
            errors.append((ran.error or "").partition(":")[0])
        assert errors == ["QueueFull", "UnknownTenant", "InvalidRequest", "InvalidRequest"]


async def test_a_failed_job_is_due_again_after_1_2_4_seconds_and_dies_of_its_last_try() -> None:
    tries: list[int] = []

    async def broken(ctx: dict[str, Any]) -> None:
        tries.append(ctx["job_try"])
        raise ConnectionError

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        job = await pw.enqueue("acme", "broken")
        for seconds in (1, 2, 4, 8):
            [ran] = await sidecar.run_jobs([broken])
            assert (ran.status, ran.error) == ("retrying", "ConnectionError")
            assert ran.run_at - (ran.started_at or ran.queued_at) == timedelta(seconds=seconds)
            sidecar.advance(seconds - 0.001)
            assert await sidecar.run_jobs([broken]) == []
            sidecar.advance(0.001)
        [ran] = await sidecar.run_jobs([broken])
        assert (ran.status, ran.attempts, tries) == ("dead", 5, [1, 2, 3, 4, 5])
        await job.retry()
        [ran] = await sidecar.run_jobs({"broken": note})
        assert (ran.status, ran.attempts, ran.error) == ("succeeded", 1, None)


async def test_arqs_own_retry_and_func_and_what_a_job_gives_up_by_count() -> None:
    async def later(ctx: dict[str, Any]) -> int:
        if ctx["job_try"] == 1:
            raise Retry(defer=30)
        if ctx["job_try"] == 2:
            raise Retry
        return int(ctx["job_try"])

    async def twice(ctx: dict[str, Any]) -> None:
        raise ValueError("again")

    async def gives_up(ctx: dict[str, Any], kind: str) -> None:
        raise {"up": GiveUp, "back": GiveBack}[kind]("enough")

    functions = [later, func(twice, name="two", max_tries=2), gives_up]
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "later", _job_id="later")
        await pw.enqueue("acme", "two", _job_id="two")
        await pw.enqueue("acme", "gives_up", "up", _job_id="up")
        await pw.enqueue("acme", "gives_up", "back", _job_id="back")
        await sidecar.run_jobs(functions)
        assert {job.id: job.status for job in sidecar.jobs()} == {
            "later": "retrying",
            "two": "retrying",
            "up": "failed",
            "back": "failed",
        }
        sidecar.advance(30)
        await sidecar.run_jobs(functions)
        by_id = {job.id: job for job in sidecar.jobs()}
        assert (by_id["later"].status, by_id["later"].result) == ("succeeded", 3)
        assert (by_id["two"].status, by_id["two"].attempts) == ("dead", 2)
        assert by_id["back"].error == "GiveBack: enough"


async def test_arqs_retry_in_the_last_try_is_told_as_workers_tell_it() -> None:
    async def never(ctx: dict[str, Any]) -> None:
        raise Retry

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "never")
        *_, ran = await sidecar.run_jobs([func(never, name="never", max_tries=2)])
    assert (ran.status, ran.error) == ("dead", "JobExecutionFailed: max 2 retries exceeded")


async def test_what_job_declares_counts() -> None:
    @declared(name="mail", max_tries=3, backoff=10, max_backoff=15)
    async def send_email(ctx: dict[str, Any]) -> None:
        raise OSError("no line")

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "mail")
        for seconds in (10, 15):
            [ran] = await sidecar.run_jobs([send_email])
            assert ran.run_at - (ran.started_at or ran.queued_at) == timedelta(seconds=seconds)
            sidecar.advance(seconds)
        [ran] = await sidecar.run_jobs([send_email])
        assert (ran.status, ran.attempts, ran.error) == ("dead", 3, "OSError: no line")


async def used(pw: Partywall) -> int:
    return (await pw.quota("acme", "emails")).used


async def test_a_jobs_quota_is_consumed_once_and_given_back_where_it_says_so() -> None:
    @declared(quota={"emails": 2})
    async def send_email(ctx: dict[str, Any], ends: str) -> None:
        if ctx["job_try"] == 1:
            raise OSError
        if ends == "back":
            raise GiveBack

    async with FakeSidecar(QUOTAS) as sidecar, Partywall() as pw:
        for ends in ("well", "back"):
            await pw.enqueue("acme", "send_email", ends)
        await sidecar.run_jobs([send_email])
        assert await used(pw) == 4
        sidecar.advance(1)
        ran = await sidecar.run_jobs([send_email])
        assert [job.status for job in ran] == ["succeeded", "failed"]
        assert await used(pw) == 2


async def test_a_job_whose_quota_is_refused_is_tried_later_or_fails_as_declared() -> None:
    async def send_email(ctx: dict[str, Any]) -> int:
        return int(ctx["job_try"])

    async def now_or_never(ctx: dict[str, Any]) -> None:
        raise AssertionError

    async def typo(ctx: dict[str, Any]) -> None:
        raise AssertionError

    functions = [
        declared(quota={"emails": 5})(send_email),
        declared(quota={"emails": 6}, on_refusal="fail")(now_or_never),
        declared(quota={"seats": 1}, max_tries=1)(typo),
    ]
    async with FakeSidecar(QUOTAS) as sidecar, Partywall() as pw:
        await pw.consume("acme", emails=1)
        for function in ("send_email", "now_or_never", "typo"):
            await pw.enqueue("acme", function)
        later, never, odd = await sidecar.run_jobs(functions)
        assert (later.status, later.attempts) == ("deferred", 0)
        assert later.error == "PartywallError: quota refused: no room for emails"
        assert (never.status, never.error) == ("failed", later.error)
        assert (odd.status, odd.error) == (
            "dead",
            "UnknownResource: no tier has a quota of 'seats'",
        )
        sidecar.advance(5)
        assert [job.status for job in await sidecar.run_jobs(functions)] == ["deferred"]
        await pw.release("acme", emails=1)
        sidecar.advance(9)
        assert await sidecar.run_jobs(functions) == []
        sidecar.advance(1)
        [ran] = await sidecar.run_jobs(functions)
        assert (ran.status, ran.result) == ("succeeded", 1)
        assert await used(pw) == 5


async def test_a_job_whose_function_is_not_there_dies_and_says_so() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "sned_email")
        [ran] = await sidecar.run_jobs([note])
        assert ran.status == "dead"
        assert ran.error == (
            "JobExecutionFailed: function 'sned_email' not found: run_jobs was given note"
        )


async def test_a_result_that_json_cannot_carry_fails_the_job() -> None:
    async def bad(ctx: dict[str, Any]) -> Any:
        return {"when": {1, 2}}

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "bad")
        [ran] = await sidecar.run_jobs([bad])
        assert ran.status == "failed"
        assert (ran.error or "").startswith(
            "unable to serialize result: result.when: expected what JSON carries"
        )


async def test_a_job_cannot_change_what_it_was_enqueued_with() -> None:
    async def spoil(ctx: dict[str, Any], words: list[str]) -> None:
        words.append("spoilt")
        raise ValueError

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "spoil", ["a"])
        [ran] = await sidecar.run_jobs([spoil])
        assert ran.args == (["a"],)


async def test_a_job_is_cancelled_while_it_runs() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        started = asyncio.Event()

        async def long(ctx: dict[str, Any]) -> None:
            started.set()
            await asyncio.Event().wait()

        job = await pw.enqueue("acme", "long")
        running = asyncio.create_task(sidecar.run_jobs([long]))
        await started.wait()
        assert await job.status() == "running"
        assert (await job.cancel()).status == "cancelled"
        assert [one.status for one in await running] == ["cancelled"]


async def test_a_job_that_cancels_itself_has_failed_a_try() -> None:
    async def odd(ctx: dict[str, Any]) -> None:
        raise asyncio.CancelledError

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "odd")
        [ran] = await sidecar.run_jobs([odd])
        assert (ran.status, ran.error) == ("retrying", "CancelledError")


async def test_jobs_whose_run_is_broken_off_wait_again() -> None:
    started = asyncio.Event()

    async def long(ctx: dict[str, Any]) -> None:
        started.set()
        await asyncio.Event().wait()

    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "long")
        running = asyncio.create_task(sidecar.run_jobs([long]))
        await started.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert [(job.status, job.attempts) for job in sidecar.jobs()] == [("queued", 0)]
        assert [job.attempts for job in await sidecar.run_jobs({"long": note})] == [1]


@pytest.mark.parametrize("function", [len, lambda ctx: None, "note", 5])
async def test_what_is_no_coroutine_function_is_refused(function: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected coroutine functions"):
        await FakeSidecar().run_jobs([function])
    with pytest.raises(ConfigurationError, match="expected coroutine functions"):
        await FakeSidecar().run_jobs({"f": function})
