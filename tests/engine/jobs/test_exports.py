"""Everything that is kept about a tenant's jobs, as JSON carries it."""

import base64
import json
import pickle

from partywall_workers.serial import dumps
from tests.engine.jobs.driver import Jobs


def result(value: object, *, success: bool = True) -> bytes:
    return dumps({"t": 1, "f": "work", "a": (), "k": {}, "et": 0, "s": success, "r": value})


async def exported(jobs: Jobs, tenant: str = "acme"):
    records = [record async for record in jobs.queue.export(tenant)]
    assert json.loads(json.dumps(records)) == records
    return records


async def test_each_job_is_told_once_with_arguments_and_result(jobs: Jobs):
    await jobs.policy("acme", tier="pro", weight=2)
    for nth in range(120):
        await jobs.add("acme", f"j{nth}", args=[nth], kwargs={"to": "x"})
    await jobs.add("beta", "other")
    done = next(one for one in await jobs.claim(2) if one.tenant == "acme")
    await jobs.end(done, result=result({"sent": 1}))
    queue, *rest = await exported(jobs)
    assert (queue["kind"], queue["tenant"], queue["tier"], queue["weight"]) == (
        "job_queue",
        "acme",
        "pro",
        2,
    )
    assert {record["kind"] for record in rest} == {"job"}
    assert {record["job_id"] for record in rest} == {f"j{nth}" for nth in range(120)}
    assert len(rest) == 120
    by_id = {record["job_id"]: record for record in rest}
    waits = by_id["j119"]
    assert (waits["status"], waits["args"], waits["kwargs"]) == ("queued", [119], {"to": "x"})
    ended = by_id[done.job_id]
    assert (ended["status"], ended["result"]) == ("succeeded", {"sent": 1})
    assert "args" not in ended  # they went with its end


async def test_a_dead_job_is_told_with_its_error_and_what_it_would_be_revived_with(jobs: Jobs):
    await jobs.add("acme", "it", args=[1])
    failed = result(ValueError("no"), success=False)
    await jobs.end(await jobs.claim(), "dead", error="ValueError: no", traceback="…", result=failed)
    (_, record) = await exported(jobs)
    told = (record["status"], record["args"], record["error"], record["traceback"])
    assert told == ("dead", [1], "ValueError: no", "…")


async def test_what_json_does_not_carry_is_told_as_its_bytes(jobs: Jobs):
    await jobs.policy("acme")
    await jobs.add("acme", "it")
    payload = pickle.dumps({"f": "work", "a": (b"x",), "k": {}})
    await jobs.redis.set(jobs.redis.names.payload("acme", "it"), payload)
    (_, record) = await exported(jobs)
    assert base64.b64decode(record["payload_base64"]) == payload
    assert "args" not in record


async def test_debts_are_told_of_their_tenant_alone(jobs: Jobs):
    debts = [{"tenant": one, "items": {"emails": 1}, "key": "k"} for one in ("acme", "beta")]
    await jobs.redis.lpush(jobs.redis.names.one("owed"), "not json", "[]", *map(json.dumps, debts))
    assert await exported(jobs) == [{"kind": "job_debt", **debts[0]}]


async def test_of_a_tenant_of_which_there_is_nothing_nothing_is_told(jobs: Jobs):
    assert await exported(jobs) == []
