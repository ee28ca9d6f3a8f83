"""What tenants' jobs came to, where it waits for the roll-up; see `lua/include/usage.lua`."""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple

from partywall_workers.answering import answering_within
from partywall_workers.redis import FairRedis

BATCH = 5000
"""Points told of, or forgotten, at once, more or less."""

COUNTS_KEPT = 30 * 86400
"""Seconds after which counts that no roll-up has fetched are given up, and no more are made."""

_TENANTS = 100
"""Tenants read in one call."""

_MINUTE = 60_000


class Point(NamedTuple):
    """What one meter of one tenant came to in one minute.

    Attributes:
        tenant: its id.
        minute: minutes since the epoch, by Redis's clock.
        meter: `jobs.started`, `jobs.succeeded`, `jobs.failed`, `jobs.run_seconds` or
            `jobs.wait_seconds`.
        value: all of the minute so far; of seconds, in microseconds.
    """

    tenant: str
    minute: int
    meter: str
    value: int


class JobUsage:
    """The counts of one queue.

    Args:
        redis: its client.
        timeout: seconds for each call.
    """

    def __init__(self, redis: FairRedis, *, timeout: float = 5.0) -> None:
        self._redis = redis
        self._names = redis.names
        self._timeout = timeout
        self._commands: Any = redis  # redis-py's annotations are those of both its faces

    async def keep(self, *, counting: bool) -> None:
        """Has jobs counted from now on, or not; to be said again while it goes.

        Errors of redis-py pass through.
        """
        key = self._names.one("rolled")
        if not counting:
            await self._commands.delete(key)
        elif not await self._commands.expire(key, COUNTS_KEPT):
            # Nothing was taken away from the minute that runs, nor from those to come.
            newest = await self._open_minute() - 1
            await self._commands.set(key, newest, nx=True, ex=COUNTS_KEPT)

    async def closed(self) -> AsyncIterator[list[Point]]:
        """Points of minutes that are over, in batches; whole minutes of a tenant in one.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        async with answering_within(self._timeout):
            open_minute = await self._open_minute()
        batch: list[Point] = []
        async for points in self._tenants():
            batch += (point for point in points if point.minute < open_minute)
            if len(batch) >= BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    async def forget(self, points: Sequence[Point]) -> None:
        """Removes those that are as they were; what has changed since is told of again.

        Raises:
            QueueUnavailable: Redis did not answer; it was done in part.
        """
        for start in range(0, len(points), BATCH // 5):
            async with answering_within(self._timeout):
                await self._redis.scripts.forget(points[start : start + BATCH // 5])

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        """All points there are of these tenants, or of all; the minute that runs included.

        Raises:
            QueueUnavailable: Redis did not answer.
        """
        if tenants is None:
            return [point async for points in self._tenants() for point in points]
        found: list[Point] = []
        for start in range(0, len(tenants), _TENANTS):
            found += await self._read(tenants[start : start + _TENANTS])
        return found

    async def _tenants(self) -> AsyncIterator[list[Point]]:
        """Points of all tenants, some tenants at a time."""
        key = self._names.one("metered")
        cursor, begun = 0, False
        seen: set[str] = set()  # a scan may tell of one twice
        while cursor or not begun:
            begun = True
            async with answering_within(self._timeout):
                cursor, members = await self._commands.sscan(key, cursor, count=_TENANTS)
            names = [name for name in map(bytes.decode, members) if name not in seen]
            seen.update(names)
            for start in range(0, len(names), _TENANTS):
                yield await self._read(names[start : start + _TENANTS])

    async def _read(self, tenants: Iterable[str]) -> list[Point]:
        names = list(dict.fromkeys(tenants))
        if not names:
            return []
        async with (
            answering_within(self._timeout),
            self._redis.pipeline(transaction=False) as pipe,
        ):
            for name in names:
                pipe.hgetall(self._names.of("usage", name))
            answers = await pipe.execute()
        return [
            _point(name, field.decode(), int(value))
            for name, answer in zip(names, answers, strict=True)
            for field, value in answer.items()
        ]

    async def _open_minute(self) -> int:
        now = self._redis.scripts.now
        if now is None:
            now = (await self._commands.time())[0] * 1000
        return int(now) // _MINUTE


def _point(tenant: str, field: str, value: int) -> Point:
    minute, _, meter = field.partition("|")
    return Point(tenant, int(minute), meter, value)
