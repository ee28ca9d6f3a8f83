"""Jobs as they stand, one by one and in pages."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from partywall_workers.records import FINISHED, JobRecord, Status
from partywall_workers.redis import FairRedis
from partywall_workers.serial import loads

_CHUNK = 500
"""Jobs looked at in one call."""

_MOST_LOOKED_AT = 20_000
"""Jobs looked at for one page: a page of a rare status may be short, and has a next one."""

Page = tuple[list[JobRecord], str | None]
"""Jobs, and the sequence below which the next page is, or None."""


class JobReader:
    """Reads the jobs of one queue; errors of redis-py pass through.

    Args:
        redis: the queue's client.
    """

    def __init__(self, redis: FairRedis) -> None:
        self._redis = redis
        self._names = redis.names
        self._commands: Any = redis  # redis-py's annotations are those of both its faces

    async def records(self, tenant: str, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """Jobs in order, None where there is none."""
        if not job_ids:
            return []
        async with self._redis.pipeline(transaction=False) as pipe:
            for job_id in job_ids:
                pipe.hgetall(self._names.job(tenant, job_id))
                pipe.get(self._names.result(tenant, job_id))
            answers = await pipe.execute()
        return [
            self.record(tenant, job_id, fields, result)
            for job_id, fields, result in zip(job_ids, answers[::2], answers[1::2], strict=True)
        ]

    async def page(self, tenant: str, status: Status | None, below: int | None, limit: int) -> Page:
        """A tenant's jobs, the last queued first.

        Args:
            tenant: whose.
            status: only these.
            below: the sequence that all have less than; None: of the first page.
            limit: how many at most.
        """
        if status in ("running", "dead"):
            return await self._small(tenant, status, below, limit)
        chunk_size = limit + 1 if status is None else _CHUNK
        found: list[JobRecord] = []
        for _ in range(_MOST_LOOKED_AT // _CHUNK):
            upper = "+inf" if below is None else f"({below}"
            chunk = await self._commands.zrevrangebyscore(
                self._names.of("all", tenant), upper, "-inf", 0, chunk_size, withscores=True
            )
            records = await self.records(tenant, [job_id.decode() for job_id, _ in chunk])
            for (_, sequence), record in zip(chunk, records, strict=True):
                if len(found) == limit:
                    return found, str(below)
                below = int(sequence)
                if record is not None and status in (None, record.status):
                    found.append(record)
            if len(chunk) < chunk_size:
                return found, None
        return found, str(below)

    async def policies(self, cursor: int) -> tuple[int, list[str]]:
        """Some of the tenants of whom there is a policy, and where to go on; 0: these were last."""
        key = self._names.one("tenants")
        following, members = await self._commands.sscan(key, cursor, count=_CHUNK)
        names = [member.decode() for member in members]
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in names:
                pipe.hexists(self._names.of("tenant", name), "policy")
            there = await pipe.execute() if names else []
        kept = [name for name, known in zip(names, there, strict=True) if known]
        gone = set(names) - set(kept)
        if gone:  # a day without a job; the next one asks for the policy again
            await self._commands.srem(key, *gone)
        return following, kept

    async def workers(self, lanes: Iterable[str], oldest: float) -> int:
        """How many workers of these lanes were seen since an instant."""
        async with self._redis.pipeline(transaction=False) as pipe:
            for name in lanes:
                pipe.zrangebyscore(self._names.of("workers", name), oldest, "+inf")
            answers = await pipe.execute()
        return len({worker for answer in answers for worker in answer})

    async def _small(self, tenant: str, status: Status, below: int | None, limit: int) -> Page:
        """A page of those that have a set of their own, which is small."""
        key = self._names.of("running" if status == "running" else "dead", tenant)
        job_ids = [job_id.decode() for job_id in await self._commands.zrange(key, 0, -1)]
        if not job_ids:
            return [], None
        sequences = await self._commands.zmscore(self._names.of("all", tenant), job_ids)
        order = sorted(
            (
                (int(sequence), job_id)
                for sequence, job_id in zip(sequences, job_ids, strict=True)
                if sequence is not None and (below is None or sequence < below)
            ),
            reverse=True,
        )
        page = order[:limit]
        records = await self.records(tenant, [job_id for _, job_id in page])
        found = [record for record in records if record is not None and record.status == status]
        return found, str(page[-1][0]) if len(order) > limit else None

    def record(
        self, tenant: str, job_id: str, fields: dict[bytes, bytes], result: bytes | None
    ) -> JobRecord | None:
        """A job of its hash, and of its result as arq has it; None where there is no hash."""
        if not fields:
            return None
        text = {name.decode(): value.decode() for name, value in fields.items()}
        status = cast("Status", text["status"])
        returned = None
        if result is not None and status == "succeeded":
            returned = (self._redis.job_deserializer or loads)(result)["r"]
        return JobRecord(
            tenant=tenant,
            job_id=job_id,
            function=text["function"],
            status=status,
            priority=int(text["priority"]),
            attempts=int(text["attempts"]),
            queued_at=int(text["queued_at"]),
            run_at=int(text["run_at"]),
            started_at=_instant(text, "started_at"),
            finished_at=_instant(text, "finished_at") if status in FINISHED else None,
            error=text.get("error") or None,
            traceback=text.get("traceback") or None,
            result=returned,
        )


def _instant(text: Mapping[str, str], name: str) -> int | None:
    value = text.get(name)
    return None if value is None else int(value)
