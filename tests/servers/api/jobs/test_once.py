"""`Idempotency-Key` on POSTs of jobs: the first answer again, and nothing done twice."""

import asyncio
from typing import Any

import pytest

from partywall_service.api.job_answers import KEPT, KEPT_RETRIED
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from tests.servers.api.jobs.queues import BASE, SEND, enqueued, listed
from tests.support.api import Caller, fields_of, problem_of


async def kept_answers(queue: FairQueue) -> list[bytes]:
    """The Redis keys of those there are."""
    answers = [key async for key in queue.redis.scan_iter(match=f"{queue.name}:answer:*")]
    assert answers
    return answers


async def forget_answers(jobs_queue: FairQueue) -> None:
    """As if the sidecar had died between what it did and its answer."""
    await jobs_queue.redis.delete(*await kept_answers(jobs_queue))


async def test_a_repeated_enqueue_gives_the_first_answer(admin: Caller) -> None:
    first = await admin.post(BASE, SEND, key="order-1")
    assert first.status_code == 202
    await admin.delete(first.headers["location"])
    again = await admin.post(BASE, SEND, key="order-1")
    assert again.status_code == 202
    assert again.content == first.content
    assert again.headers["location"] == first.headers["location"]
    assert again.headers["content-type"] == "application/json"
    assert len(await listed(admin)) == 1
    assert (await admin.post(BASE, SEND, key="order-2")).content != first.content
    assert (await admin.post(BASE, SEND)).content != first.content
    assert len(await listed(admin)) == 3


async def test_another_body_under_the_key_is_a_conflict(admin: Caller) -> None:
    body = SEND | {"args": [1], "kwargs": {"a": 1, "b": 2}}
    first = await admin.post(BASE, body, key="k")
    for change in (
        {"function": "other"},
        {"args": [2]},
        {"args": [1.5]},
        {"kwargs": {"a": 1}},
        {"job_id": "x"},
        {"priority": 6},
        {"defer_by": 1},
        {"defer_until": "2001-01-31T12:00:00Z"},
    ):
        problem_of(await admin.post(BASE, body | change, key="k"), 409, "conflict")
    assert len(await listed(admin)) == 1
    said_otherwise = {"kwargs": {"b": 2, "a": 1}, "priority": 5, "job_id": None} | {
        name: body[name] for name in ("args", "function")
    }
    assert (await admin.post(BASE, said_otherwise, key="k")).content == first.content


async def test_a_key_belongs_to_its_tenant_and_path(admin: Caller) -> None:
    await admin.put("/v1/tenants/beta", {"tier": "pro"})
    mine = (await admin.post(BASE, SEND, key="k")).json()
    theirs = (await admin.post("/v1/tenants/beta/jobs", SEND, key="k")).json()
    assert (mine["tenant"], theirs["tenant"]) == ("acme", "beta")
    for verb in ("pause", "resume", "purge"):
        assert (await admin.post(f"{BASE}/{verb}", key="k")).status_code == 200


async def test_refusals_are_answers_too(admin: Caller, jobs_queue: FairQueue) -> None:
    await jobs_queue.set_policy("acme", JobPolicy(max_queued=1))
    await enqueued(admin, "only")
    full = await admin.post(BASE, SEND, key="k")
    problem_of(full, 429, "queue-full")
    unknown = await admin.post(f"{BASE}/later/retry", key="k")
    problem_of(unknown, 404, "unknown-job")
    await admin.post(f"{BASE}/purge")
    await enqueued(admin, "later")
    again = await admin.post(BASE, SEND, key="k")
    assert again.content == full.content
    assert again.headers["content-type"] == "application/problem+json"
    assert again.headers["retry-after"] == full.headers["retry-after"]
    assert (await admin.post(f"{BASE}/later/retry", key="k")).content == unknown.content


async def test_a_refusal_of_one_attempt_is_decided_anew(
    admin: Caller, jobs_queue: FairQueue
) -> None:
    await jobs_queue.set_policy("acme", JobPolicy(max_queued=1))
    await enqueued(admin, "only")
    problem_of(await admin.post(BASE, SEND, key="try:1"), 429, "queue-full")
    await admin.post(f"{BASE}/purge")
    first = await admin.post(BASE, SEND, key="try:1")
    assert first.status_code == 202
    assert (await admin.post(BASE, SEND, key="try:1")).content == first.content


async def test_a_repeated_purge_tells_of_the_first(admin: Caller) -> None:
    await enqueued(admin, "a", "b")
    first = (await admin.post(f"{BASE}/purge", key="k")).json()
    assert first["purged"] == 2
    await enqueued(admin, "c")
    assert (await admin.post(f"{BASE}/purge", key="k")).json() == first
    assert await listed(admin, status="queued") == ["c"]


async def test_at_once_one_job_is_made_and_all_are_answered_alike(admin: Caller) -> None:
    answers = await asyncio.gather(*(admin.post(BASE, SEND, key="k") for _ in range(10)))
    assert len({(answer.status_code, answer.content) for answer in answers}) == 1
    assert len(await listed(admin)) == 1


@pytest.mark.parametrize("body", [SEND, SEND | {"job_id": "mine"}])
async def test_after_a_crash_before_the_answer_the_job_is_found(
    admin: Caller, jobs_queue: FairQueue, body: dict[str, Any]
) -> None:
    first = await admin.post(BASE, body, key="k")
    await forget_answers(jobs_queue)
    again = await admin.post(BASE, body, key="k")
    assert again.status_code == 200
    assert again.json() == first.json()
    assert len(await listed(admin)) == 1


async def test_answers_are_kept_for_two_days(admin: Caller, jobs_queue: FairQueue) -> None:
    for key, seconds in (("k", KEPT), ("try:k", KEPT_RETRIED)):
        await admin.post(BASE, SEND, key=key)
        (answer,) = await kept_answers(jobs_queue)
        assert seconds - 60 < await jobs_queue.redis.ttl(answer) <= seconds
        await forget_answers(jobs_queue)


async def test_what_can_be_no_key_is_refused(admin: Caller) -> None:
    for key in ("", "a b", "\t", "x" * 256):
        assert fields_of(await admin.post(BASE, SEND, key=key)) == ["Idempotency-Key"]
    assert await listed(admin) == []
