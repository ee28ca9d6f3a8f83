"""All that a queue keeps of a tenant, told record by record as JSON carries it.

| `kind` | holds |
| --- | --- |
| `job_queue` | one: its policy, what is counted of it, whether it is paused |
| `job` | each job: its record, `args`, `kwargs` while they are kept, its `result` |
| `job_debt` | quota items that are to be given back |

What a worker's own serializer wrote, and JSON does not carry, is told as its bytes in base64:
`payload_base64`, `result_base64`.
"""

import json
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, suppress
from dataclasses import asdict
from typing import Any

from partywall_workers.reading import JobReader
from partywall_workers.redis import FairRedis
from partywall_workers.serial import dumps, loads

_PAGE = 50
"""Jobs in one call: a payload may have a megabyte."""

_DEBTS = 500
"""Debts in one call."""

Exported = dict[str, Any]


async def export(
    redis: FairRedis, tenant: str, answering: Callable[[], AbstractAsyncContextManager[None]]
) -> AsyncIterator[Exported]:
    """As `FairQueue.export`.

    Args:
        redis: the queue's client.
        tenant: whose.
        answering: what each call runs in.
    """
    commands: Any = redis  # redis-py's annotations are those of both its faces
    async with answering():
        known = await commands.exists(redis.names.of("tenant", tenant))
        (backlog,) = await redis.scripts.backlog([tenant])
    if known:
        yield {"kind": "job_queue", **asdict(backlog)}
    listed = redis.names.of("all", tenant)
    below = "+inf"
    while True:
        async with answering():
            page = await commands.zrevrangebyscore(listed, below, "-inf", 0, _PAGE, withscores=True)
            records = await _jobs(redis, tenant, [job_id.decode() for job_id, _ in page])
        for record in records:
            yield record
        if len(page) < _PAGE:
            break
        below = f"({page[-1][1]:.0f}"
    async for debt in _debts(redis, tenant, answering):
        yield debt


async def _jobs(redis: FairRedis, tenant: str, job_ids: list[str]) -> list[Exported]:
    if not job_ids:
        return []
    reader, names = JobReader(redis), redis.names
    async with redis.pipeline(transaction=False) as pipe:
        for job_id in job_ids:
            pipe.hgetall(names.job(tenant, job_id))
            pipe.get(names.payload(tenant, job_id))
            pipe.get(names.result(tenant, job_id))
        answers = await pipe.execute()
    found: list[Exported] = []
    for job_id, fields, payload, result in zip(
        job_ids, answers[::3], answers[1::3], answers[2::3], strict=True
    ):
        record = reader.record(tenant, job_id, fields, None)
        if record is not None:
            told = {"kind": "job", **asdict(record)}
            told |= _told(redis, "payload", payload, {"args": "a", "kwargs": "k"})
            told |= _told(redis, "result", result, {"result": "r"} if record.error is None else {})
            found.append(told)
    return found


def _told(redis: FairRedis, what: str, text: bytes | None, fields: Mapping[str, str]) -> Exported:
    """Fields of what a serializer wrote, or its bytes."""
    if text is None or not fields:
        return {}
    try:
        data = (redis.job_deserializer or loads)(text)
        dumps(data)
        return {name: data[short] for name, short in fields.items()}
    except Exception:  # noqa: BLE001 - a serializer is anybody's, and so is what was written
        return {f"{what}_base64": b64encode(text).decode()}


async def _debts(
    redis: FairRedis, tenant: str, answering: Callable[[], AbstractAsyncContextManager[None]]
) -> AsyncIterator[Exported]:
    commands: Any = redis
    start = 0
    while True:
        async with answering():
            debts = await commands.lrange(redis.names.one("owed"), start, start + _DEBTS - 1)
        for text in debts:
            with suppress(ValueError):  # anybody may have written it
                debt = json.loads(text)
                if isinstance(debt, dict) and debt.get("tenant") == tenant:
                    yield {"kind": "job_debt", **debt}
        if len(debts) < _DEBTS:
            return
        start += _DEBTS
