"""Who may do what with jobs; a tenant's token learns nothing of another's."""

from collections.abc import Mapping
from typing import Any

from partywall_workers.queue import FairQueue
from tests.servers.api.jobs.queues import BASE, SEND, enqueued
from tests.support.api import Caller, fields_of, problem_of

READS = (("GET", BASE), ("GET", f"{BASE}/a"))
OPERATIONS: Mapping[tuple[str, str], Any] = {
    ("POST", BASE): SEND,
    ("POST", f"{BASE}/a/retry"): None,
    ("POST", f"{BASE}/pause"): None,
    ("POST", f"{BASE}/resume"): None,
    ("POST", f"{BASE}/purge"): None,
    **dict.fromkeys(READS),
    ("DELETE", f"{BASE}/a"): None,
    ("GET", "/v1/queues"): None,
}


async def answers_to(caller: Caller) -> dict[tuple[str, str], int]:
    """The status of every operation."""
    return {
        (method, path): (await caller.http.request(method, path, json=body)).status_code
        for (method, path), body in OPERATIONS.items()
    }


async def test_without_a_token_nothing_is_said(admin: Caller) -> None:
    for wrong in (None, "wrong"):
        for method, path in OPERATIONS:
            # The body is no JSON: it is not even looked at.
            answer = await admin.with_token(wrong).http.request(method, path, content=b"{")
            problem_of(answer, 401, "unauthenticated")


async def test_a_hosts_token_does_it_all(admin: Caller) -> None:
    await enqueued(admin, "a")
    answers = await answers_to(await admin.caller("host"))
    assert not {401, 403} & set(answers.values())


async def test_a_tenants_token_reads_its_own(admin: Caller) -> None:
    await enqueued(admin, "a")
    answers = await answers_to(await admin.caller("tenant:acme"))
    assert {operation for operation, status in answers.items() if status == 200} == set(READS)
    assert {answers[operation] for operation in OPERATIONS.keys() - set(READS)} == {403}
    assert (await admin.get(f"{BASE}/a")).json()["status"] == "queued"


async def test_a_tenants_token_learns_nothing_of_others(admin: Caller) -> None:
    await admin.put("/v1/tenants/beta", {"tier": "pro"})
    await enqueued(admin, "a")
    beta = await admin.caller("tenant:beta")
    tenants = ("acme", "nobody", "_system", "_cron", "%00")
    for path in ("", "/a", "/b", "/%00"):
        answers = [await beta.get(f"/v1/tenants/{who}/jobs{path}") for who in tenants]
        assert len({answer.content for answer in answers}) == 1
        problem_of(answers[0], 403, "forbidden")
    for method, path in OPERATIONS:
        problem_of(await beta.http.request(method, path), 403, "forbidden")


async def test_an_admin_reads_what_is_no_tenants(admin: Caller, jobs_queue: FairQueue) -> None:
    host = await admin.caller("host")
    for tenant in ("_system", "_cron"):
        await jobs_queue.enqueue(tenant, "sweep", job_id="x")
        base = f"/v1/tenants/{tenant}/jobs"
        assert len((await admin.get(base)).json()["jobs"]) == 1
        assert (await admin.get(f"{base}/x")).json()["tenant"] == tenant
        problem_of(await admin.get(f"{base}/y"), 404, "unknown-job")
        for path in (base, f"{base}/x"):
            problem_of(await host.get(path), 403, "forbidden")
        for answer in (
            await admin.post(base, SEND),
            await admin.delete(f"{base}/x"),
            await admin.post(f"{base}/x/retry"),
            await admin.post(f"{base}/purge"),
        ):
            assert fields_of(answer) == ["tenant"]
