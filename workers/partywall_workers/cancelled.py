"""What arq's handle is told of a job that was cancelled before it began."""

import asyncio
import time

from arq.jobs import SerializationError, deserialize_job, serialize_result
from arq.utils import to_unix_ms

from partywall_workers.redis import FairRedis
from partywall_workers.serial import loads


def cancelled_result(redis: FairRedis, tenant: str, job_id: str, payload: bytes) -> bytes:
    """Its result; nothing where the payload, which anybody may have written, cannot be read."""
    try:
        job = deserialize_job(payload, deserializer=redis.job_deserializer or loads)
    except SerializationError:
        return b""  # it is cancelled all the same
    at = time.time_ns() // 1_000_000
    arq_id = redis.names.arq_id(tenant, job_id)
    result = serialize_result(
        job.function,
        job.args,
        job.kwargs,
        job.job_try or 0,
        to_unix_ms(job.enqueue_time),
        False,
        asyncio.CancelledError(),
        at,
        at,
        f"{arq_id}:{job.function}",
        redis.default_queue_name,
        arq_id,
        serializer=redis.job_serializer,
    )
    return result or b""
