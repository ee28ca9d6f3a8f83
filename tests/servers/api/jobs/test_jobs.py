"""`/v1/tenants/{t}/jobs` and `/v1/queues`, on a real Valkey and a real PostgreSQL."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from partywall_service.api.body_limit import MAX_JOB
from partywall_service.jobs.connect import open_queue
from partywall_workers.errors import NotJson, TenantErased
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.redis import MAX_DELAY, FairRedis
from tests.servers.api.jobs.queues import BASE, SEND, enqueued, listed
from tests.support.api import ADMIN, Caller, api_with, fields_of, hand_made_parts, problem_of


async def test_a_job_is_enqueued_and_read(admin: Caller) -> None:
    before = datetime.now(UTC) - timedelta(seconds=1)
    answer = await admin.post(BASE, SEND | {"args": [1, None], "kwargs": {"to": "a@b.c"}})
    assert answer.status_code == 202
    job = answer.json()
    assert list(job.items()) == [
        ("job_id", job["job_id"]),
        ("tenant", "acme"),
        ("function", "send_email"),
        ("status", "queued"),
        ("priority", 5),
        ("attempts", 0),
        ("queued_at", job["queued_at"]),
        ("run_at", job["queued_at"]),
        ("started_at", None),
        ("finished_at", None),
        ("error", None),
        ("result", None),
    ]
    assert len(job["queued_at"]) == len("2026-11-21T11:02:30.540Z")
    assert job["queued_at"].endswith("Z")
    assert before < datetime.fromisoformat(job["queued_at"]) < before + timedelta(seconds=30)
    assert answer.headers["location"] == f"{BASE}/{job['job_id']}"
    read = await admin.get(answer.headers["location"])
    assert (read.status_code, read.json()) == (200, job)


async def test_a_job_id_that_is_kept_gives_the_job_that_has_it(admin: Caller) -> None:
    body = SEND | {"job_id": "welcome:4711", "priority": 9}
    first = await admin.post(BASE, body)
    again = await admin.post(BASE, {"function": "other", "job_id": "welcome:4711"})
    assert (first.status_code, again.status_code) == (202, 200)
    assert again.json() == first.json()
    assert "location" not in again.headers
    assert await listed(admin) == ["welcome:4711"]


async def test_two_tenants_may_give_their_jobs_the_same_id(admin: Caller) -> None:
    await admin.put("/v1/tenants/beta", {"tier": "pro"})
    await enqueued(admin, "same")
    answer = await admin.post("/v1/tenants/beta/jobs", {"function": "other", "job_id": "same"})
    assert answer.status_code == 202
    assert (await admin.get(f"{BASE}/same")).json()["function"] == "send_email"
    assert (await admin.get("/v1/tenants/beta/jobs/same")).json()["function"] == "other"


async def test_a_job_is_deferred_by_seconds_or_until_an_instant(admin: Caller) -> None:
    job = (await admin.post(BASE, SEND | {"defer_by": 90.5})).json()
    assert job["status"] == "deferred"
    put_off = datetime.fromisoformat(job["run_at"]) - datetime.fromisoformat(job["queued_at"])
    assert put_off == timedelta(seconds=90.5)

    instant = (datetime.now(UTC) + timedelta(days=2)).replace(microsecond=0)
    for offset in (UTC, datetime.fromisoformat("2030-01-01T00:00:00+05:30").tzinfo):
        body = SEND | {"defer_until": instant.astimezone(offset).isoformat()}
        job = (await admin.post(BASE, body)).json()
        assert job["status"] == "deferred"
        assert datetime.fromisoformat(job["run_at"]) == instant


async def test_what_was_due_long_ago_is_queued(admin: Caller) -> None:
    for body in ({"defer_until": "2001-01-31T12:00:00Z"}, {"defer_by": 0}):
        assert (await admin.post(BASE, SEND | body)).json()["status"] == "queued"


NONSENSE: Sequence[tuple[Mapping[str, Any], str]] = [
    ({"function": ""}, "function"),
    ({"function": None}, "function"),
    ({"function": "x" * 201}, "function"),
    ({"function": 1}, "function"),
    ({"args": {}}, "args"),
    ({"args": "abc"}, "args"),
    ({"args": None}, "args"),
    ({"kwargs": []}, "kwargs"),
    ({"kwargs": None}, "kwargs"),
    ({"job_id": ""}, "job_id"),
    ({"job_id": "-x"}, "job_id"),
    ({"job_id": "a/b"}, "job_id"),
    ({"job_id": "a\n"}, "job_id"),
    ({"job_id": "x" * 201}, "job_id"),
    ({"job_id": "purge"}, "job_id"),
    ({"priority": -1}, "priority"),
    ({"priority": 10}, "priority"),
    ({"priority": 5.0}, "priority"),
    ({"priority": True}, "priority"),
    ({"priority": None}, "priority"),
    ({"defer_by": -0.001}, "defer_by"),
    ({"defer_by": MAX_DELAY + 1}, "defer_by"),
    ({"defer_by": "60"}, "defer_by"),
    ({"defer_by": 1, "defer_until": "2198-01-31T12:00:00Z"}, "defer_until"),
    ({"defer_until": "2198-01-31T12:00:00Z"}, "defer_until"),
    ({"defer_until": "2030-01-31T12:00:00"}, "defer_until"),
    ({"defer_until": "tomorrow"}, "defer_until"),
    ({"defer_until": 1900000000}, "defer_until"),
    ({"expires": 5}, "expires"),
    ({"tenant": "other"}, "tenant"),
]


async def test_what_makes_no_sense_is_refused(admin: Caller) -> None:
    for changes, field in NONSENSE:
        assert fields_of(await admin.post(BASE, {**SEND, **changes})) == [field], changes
    assert await listed(admin) == []


async def test_the_longest_of_everything_is_taken(admin: Caller) -> None:
    body = {"function": "f" * 200, "job_id": "J" * 200, "priority": 0, "defer_by": MAX_DELAY}
    assert (await admin.post(BASE, body)).status_code == 202
    assert (await admin.get(f"{BASE}/{'J' * 200}")).json()["priority"] == 0
    far = await admin.post(BASE, SEND | {"defer_until": "2099-01-31T12:00:00Z"})
    assert (far.status_code, far.json()["run_at"]) == (202, "2099-01-31T12:00:00.000Z")


async def test_arguments_that_json_does_not_carry_are_refused(admin: Caller) -> None:
    deep = "[" * 101 + "]" * 101
    unlike = ["NaN", "-Infinity", "1e999", '"\\ud800"', '{"\\ud800": 1}', deep]
    for value in unlike:
        for field, given in (("args", f"[{value}]"), ("kwargs", f'{{"to": {value}}}')):
            answer = await admin.http.post(
                BASE,
                content=f'{{"function": "f", "{field}": {given}}}',
                headers={"content-type": "application/json", "idempotency-key": "k"},
            )
            (at,) = fields_of(answer)
            assert at.startswith(field)
    assert await listed(admin) == []


async def test_python_refuses_the_same(jobs_queue: FairQueue) -> None:
    deep: Any = None
    for _ in range(100):
        deep = [deep]
    await jobs_queue.enqueue("acme", "f", [deep], {"to": deep})
    for value in (float("nan"), "\ud800", {"\ud800": 1}, {1: 2}, [deep], {1, 2}, b""):
        for args, kwargs in (([value], {}), ([], {"to": value})):
            with pytest.raises(NotJson, match=r"^(args\[0\]|kwargs\.to)"):
                await jobs_queue.enqueue("acme", "f", args, kwargs)
    assert len((await jobs_queue.list("acme"))[0]) == 1


async def test_arguments_may_be_large_but_not_without_end(admin: Caller) -> None:
    for size, status in ((MAX_JOB - 100, 202), (MAX_JOB, 413)):
        answer = await admin.post(BASE, SEND | {"args": ["x" * size]})
        assert answer.status_code == status
    # As the queue has it every one of these takes six bytes.
    answer = await admin.post(BASE, SEND | {"args": ["é" * (MAX_JOB // 4)]})
    assert fields_of(answer) == ["args"]


async def test_arguments_named_as_options_are_arguments(admin: Caller) -> None:
    kwargs = {"_tenant": "other", "_job_id": "theirs", "_queue_name": "x", "job_id": 1, "self": 2}
    answer = await admin.post(BASE, SEND | {"job_id": "mine", "kwargs": kwargs})
    assert answer.status_code == 202
    assert await listed(admin) == ["mine"]


async def test_nobodys_jobs_are_an_unknown_tenants(admin: Caller) -> None:
    base = "/v1/tenants/nobody/jobs"
    for answer in (
        await admin.post(base, SEND),
        await admin.get(base),
        await admin.get(f"{base}/x"),
        await admin.delete(f"{base}/x"),
        await admin.post(f"{base}/x/retry"),
        await admin.post(f"{base}/pause"),
        await admin.post(f"{base}/resume"),
        await admin.post(f"{base}/purge"),
    ):
        problem_of(answer, 404, "unknown-tenant")


async def test_unless_the_default_tier_serves_them(
    database_url: str, jobs_queue: FairQueue
) -> None:
    async with hand_made_parts(database_url, default_tier="free", jobs=jobs_queue) as parts:
        admin = Caller(api_with(parts), ADMIN)
        answer = await admin.post("/v1/tenants/nobody/jobs", SEND)
        assert answer.status_code == 202
        assert (await admin.get(answer.headers["location"])).json() == answer.json()


async def test_a_suspended_tenants_jobs_are_taken_and_wait(admin: Caller) -> None:
    await admin.put("/v1/tenants/acme", {"tier": "pro", "status": "suspended"})
    assert (await admin.post(BASE, SEND)).json()["status"] == "queued"


async def test_a_full_queue_takes_no_more(admin: Caller, jobs_queue: FairQueue) -> None:
    await jobs_queue.set_policy("acme", JobPolicy(max_queued=2))
    await enqueued(admin, "one")
    await enqueued(admin, "two", defer_by=3600)
    answer = await admin.post(BASE, SEND)
    problem_of(answer, 429, "queue-full")
    assert int(answer.headers["retry-after"]) >= 1
    assert (await admin.post(BASE, SEND | {"job_id": "one"})).status_code == 200
    await admin.delete(f"{BASE}/two")
    await enqueued(admin, "three")


async def test_the_list_comes_in_pages_newest_first(admin: Caller) -> None:
    ids = [f"job-{n}" for n in range(7)]
    await enqueued(admin, *ids)
    for page_size in (1, 2, 7, 1000):
        assert await listed(admin, page_size=page_size) == ids[::-1]


async def test_the_list_is_narrowed_by_status(admin: Caller) -> None:
    await enqueued(admin, "a", "b", "c")
    await enqueued(admin, "later", defer_by=3600)
    await admin.delete(f"{BASE}/b")
    assert await listed(admin, status="queued") == ["c", "a"]
    assert await listed(admin, status="queued", page_size=1) == ["c", "a"]
    assert await listed(admin, status="deferred") == ["later"]
    assert await listed(admin, status="cancelled") == ["b"]
    assert await listed(admin, status="running") == []


async def test_a_query_that_makes_no_sense_is_refused(admin: Caller) -> None:
    for name, value in (
        ("page_size", "0"),
        ("page_size", "1001"),
        ("cursor", "nonsense"),
        ("cursor", ""),
        ("cursor", "\x00"),
        ("cursor", "x" * 2000),
        ("status", "gone"),
    ):
        assert fields_of(await admin.get(BASE, **{name: value})) == [name]


async def test_a_cursor_of_another_list_is_refused(admin: Caller) -> None:
    for _ in range(2):
        await admin.token("host")
    cursor = (await admin.get("/v1/tokens", page_size=1)).json()["next_cursor"]
    assert fields_of(await admin.get(BASE, cursor=cursor)) == ["cursor"]


async def test_a_waiting_job_is_cancelled_once(admin: Caller) -> None:
    await enqueued(admin, "x")
    answer = await admin.delete(f"{BASE}/x")
    assert answer.status_code == 200
    job = answer.json()
    assert (job["status"], job["started_at"]) == ("cancelled", None)
    assert job["finished_at"] >= job["queued_at"]
    assert (await admin.get(f"{BASE}/x")).json() == job
    problem_of(await admin.delete(f"{BASE}/x"), 409, "conflict")
    problem_of(await admin.post(f"{BASE}/x/retry"), 409, "conflict")


async def test_a_job_that_is_not_there_is_unknown(admin: Caller) -> None:
    for answer in (
        await admin.get(f"{BASE}/x"),
        await admin.delete(f"{BASE}/x"),
        await admin.post(f"{BASE}/x/retry"),
    ):
        problem_of(answer, 404, "unknown-job")


async def test_what_can_be_no_id_is_refused(admin: Caller) -> None:
    for job_id in ("-x", "a%20b", "a%00", "%C3%A9", "x" * 201, "a;b"):
        assert fields_of(await admin.get(f"{BASE}/{job_id}")) == ["job_id"]
        assert fields_of(await admin.delete(f"{BASE}/{job_id}")) == ["job_id"]
        assert fields_of(await admin.post(f"{BASE}/{job_id}/retry")) == ["job_id"]


async def test_a_verb_is_no_job(admin: Caller) -> None:
    for verb in ("pause", "resume", "purge"):
        for method in ("GET", "DELETE", "PUT"):
            answer = await admin.http.request(method, f"{BASE}/{verb}")
            problem_of(answer, 405, "method-not-allowed")
            assert answer.headers["allow"] == "POST"


async def test_a_queue_is_paused_resumed_and_purged(admin: Caller) -> None:
    await enqueued(admin, "a", "b")
    paused = {"tenant": "acme", "paused": True, "purged": 0}
    for _ in range(2):
        assert (await admin.post(f"{BASE}/pause")).json() == paused
    await enqueued(admin, "c", defer_by=60)
    assert (await admin.post(f"{BASE}/purge")).json() == paused | {"purged": 3}
    assert await listed(admin, status="cancelled") == ["c", "b", "a"]
    assert (await admin.post(f"{BASE}/purge")).json() == paused
    resumed = {"tenant": "acme", "paused": False, "purged": 0}
    for _ in range(2):
        assert (await admin.post(f"{BASE}/resume")).json() == resumed
    lines = (await admin.get("/v1/audit?tenant=acme")).json()["entries"]
    told = [(line["actor"], line["action"], line["detail"]) for line in lines]
    assert [one for one in told if one[1].startswith("jobs.")] == [
        ("admin", "jobs.resumed", {}),
        ("admin", "jobs.purged", {"purged": 3}),
        ("admin", "jobs.paused", {}),
    ]


async def test_the_busiest_queues_come_first(admin: Caller, jobs_queue: FairQueue) -> None:
    await admin.put("/v1/tenants/beta", {"tier": "pro"})
    policy = JobPolicy(tier="pro", weight=4, concurrency=2, max_queued=10, held="suspended")
    await jobs_queue.set_policy("acme", policy)
    await admin.post("/v1/tenants/beta/jobs", SEND)
    await enqueued(admin, "a", "b")
    await enqueued(admin, "c", defer_by=60)
    await admin.post(f"{BASE}/pause")
    page = (await admin.get("/v1/queues")).json()
    assert page["next_cursor"] is None
    acme, beta = page["tenants"]
    assert acme == {
        "tenant": "acme",
        "tier": "pro",
        "lane": "default",
        "weight": 4.0,
        "queued": 2,
        "deferred": 1,
        "running": 0,
        "dead": 0,
        "oldest_wait": acme["oldest_wait"],
        "concurrency": 2,
        "max_queued": 10,
        "paused": True,
        "held": "suspended",
        "claims": 0,
        "retries": 0,
        "died": 0,
        "expired": 0,
    }
    assert 0 <= acme["oldest_wait"] < 30
    assert (beta["tenant"], beta["queued"], beta["max_queued"]) == ("beta", 1, None)
    page = (await admin.get("/v1/queues", page_size=1)).json()
    assert [one["tenant"] for one in page["tenants"]] == ["acme"]
    assert fields_of(await admin.get("/v1/queues", page_size=0)) == ["page_size"]


async def test_the_jobs_of_a_deleted_tenant_are_erased_and_its_workers_lose_them(
    admin: Caller, jobs_queue: FairQueue
) -> None:
    await enqueued(admin, "running", "waits")
    await enqueued(admin, "later", defer_by=60)
    scripts = jobs_queue.redis.scripts
    claims = await scripts.claim(1, lease=60_000, keep=60_000, costs=b"{}", lanes=["default"])
    assert [job.job_id for job in claims.jobs] == ["running"]
    assert (await admin.delete("/v1/tenants/acme")).status_code == 204
    problem_of(await admin.post(BASE, SEND), 404, "unknown-tenant")
    problem_of(await admin.get(BASE), 404, "unknown-tenant")
    (job,) = claims.jobs
    assert await scripts.renew(60_000, [(job.ref, job.fence)]) == ["lost"]  # its worker hears


async def test_what_is_late_for_a_deleted_tenant_is_not_queued(
    admin: Caller, jobs_queue: FairQueue
) -> None:
    await admin.delete("/v1/tenants/acme")
    with pytest.raises(TenantErased):
        await jobs_queue.enqueue("acme", "f", job_id="late")
    # Where a sidecar's directory is behind, a repetition a moment later meets the truth.
    await admin.put("/v1/tenants/acme", {"tier": "pro"})
    problem_of(await admin.post(BASE, SEND), 503, "unavailable")
    await jobs_queue.set_policy("acme", JobPolicy())  # as the keeper of a sidecar does when asked
    assert (await admin.post(BASE, SEND)).status_code == 202


async def test_without_redis_jobs_are_unavailable(database_url: str) -> None:
    away = FairQueue(FairRedis.from_url("unix:///nowhere"))
    async with hand_made_parts(database_url, jobs=away) as parts:
        admin = Caller(api_with(parts), ADMIN)
        await admin.put("/v1/tenants/acme", {"tier": "pro"})
        for answer in (
            await admin.delete("/v1/tenants/acme"),  # and nothing is deleted by half
            await admin.post(BASE, SEND),
            await admin.post(BASE, SEND, key="k"),
            await admin.get(BASE),
            await admin.get(f"{BASE}/x"),
            await admin.delete(f"{BASE}/x"),
            await admin.post(f"{BASE}/x/retry"),
            await admin.post(f"{BASE}/purge"),
            await admin.get("/v1/queues"),
        ):
            told = problem_of(answer, 503, "unavailable")
            assert answer.headers["retry-after"] == "1"
            assert "nowhere" not in told["detail"]  # addresses are for the log


async def test_on_a_cluster_jobs_are_unavailable_and_say_why(database_url: str) -> None:
    url = "redis+cluster://127.0.0.1:1"
    async with (
        open_queue(url, prefix="t", keep=1) as queue,
        hand_made_parts(database_url, jobs=queue) as parts,
    ):
        answer = await Caller(api_with(parts), ADMIN).get("/v1/queues")
        assert "PARTYWALL_JOBS_REDIS_URL" in problem_of(answer, 503, "unavailable")["detail"]
