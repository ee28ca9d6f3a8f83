"""The counts in the Redis of limits, for the roll-up and for whoever reads what is newest."""

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any, TypeVar

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.connect import answering_within
from partywall_service.usage import keys
from partywall_service.usage.scripts import Flat, ForgetScript, ReadScript
from partywall_service.usage.source import Point

BATCH = 5000
"""Points to a batch of the roll-up, or somewhat more."""

CALL = 2000
"""Counts that one call reads or removes: Redis is busy with it for two milliseconds."""

TENANTS_TO_A_CALL = 500

MEMBERS = 10_000
"""Tenants whose names one round trip asks for, unless one shard has more."""

Item = TypeVar("Item")


class LimitsSource:
    """What decisions and reports have counted, and the roll-up has not fetched yet.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
        deadline: seconds until a call counts as failed. A call reads or removes some thousand
            counts, so one for the roll-up may be longer than that of checks.
        now: microseconds since the epoch in place of Redis's clock, for tests.
    """

    def __init__(
        self,
        client: Redis | RedisCluster,
        prefix: str,
        deadline: float,
        *,
        now: Callable[[], int] | None = None,
    ) -> None:
        self._client = client
        self._prefix = prefix
        self._deadline = deadline
        self._read_script = ReadScript(prefix)
        self._forget_script = ForgetScript(prefix)
        self._by_shard = isinstance(client, RedisCluster)
        self._now = now

    async def closed(self) -> AsyncIterator[list[Point]]:
        """Points of minutes that are over, in batches; a tenant's minute is never divided.

        Raises:
            StoreError: no answer within the deadline.
        """
        batch: list[Point] = []
        async for tenants in self._metered():
            without = []
            async for tenant, minute, points in self._read(tenants):
                if not points:
                    without.append(tenant)
                for part in _parts([point for point in points if point.minute < minute]):
                    batch += part
                    if len(batch) >= BATCH:
                        yield batch
                        batch = []
            await self._strike_off(without)
        if batch:
            yield batch

    async def forget(self, points: Sequence[Point]) -> None:
        """Removes those that still have this value.

        Raises:
            StoreError: no answer within the deadline; some may be removed.
        """
        for of_call in self._calls(points, CALL, lambda point: point.tenant):
            by_tenant: dict[str, list[Point]] = {}
            for point in of_call:
                by_tenant.setdefault(point.tenant, []).append(point)
            async with answering_within(self._deadline):
                await self._forget_script(self._client, by_tenant)

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        """All there is of these tenants, or of all; the minute that runs included.

        Raises:
            StoreError: no answer within the deadline.
        """
        if tenants is not None:
            return [point async for *_, points in self._read(tenants) for point in points]
        held = []
        async for some in self._metered():
            async for *_, points in self._read(some):
                held += points
        return held

    async def _metered(self) -> AsyncIterator[list[str]]:
        """Who has counts, some at a time."""
        sizes = await self._of_shards("SCARD", range(keys.SHARDS))
        numbers: list[int] = []
        members = 0
        for number, size in enumerate(sizes):
            if size and members + size > MEMBERS and numbers:
                yield await self._members(numbers)
                numbers, members = [], 0
            if size:
                numbers.append(number)
                members += size
        if numbers:
            yield await self._members(numbers)

    async def _members(self, numbers: Sequence[int]) -> list[str]:
        sets = await self._of_shards("SMEMBERS", numbers)
        return [member.decode() for members in sets for member in members]

    async def _of_shards(self, command: str, numbers: Iterable[int]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for number in numbers:
            pipeline.execute_command(command, keys.metered(self._prefix, number))
        async with answering_within(self._deadline):
            return list(await pipeline.execute())

    async def _read(self, tenants: Sequence[str]) -> AsyncIterator[tuple[str, int, list[Point]]]:
        """Of each tenant the minute that runs, and its points."""
        known: dict[bytes, tuple[int, str]] = {}  # most tenants have the same meters and minutes
        for left in self._calls(tenants, TENANTS_TO_A_CALL, str):
            while left:
                now = None if self._now is None else self._now()
                async with answering_within(self._deadline):
                    minute, counts = await self._read_script(
                        self._client, left, enough=CALL, now=now
                    )
                for tenant, count in zip(left, counts, strict=False):
                    flat = await self._scan(tenant) if isinstance(count, int) else count
                    yield tenant, minute, _points(tenant, flat, known)
                left = left[len(counts) :]

    async def _scan(self, tenant: str) -> Flat:
        """The counts of a tenant that has many: weeks without a roll-up leave some."""
        found: dict[bytes, bytes] = {}
        cursor = 0
        while True:
            async with answering_within(self._deadline):
                cursor, some = await self._client.hscan(
                    keys.usage(self._prefix, tenant), cursor, count=CALL
                )
            found.update(some)
            if not cursor:
                return [part for item in found.items() for part in item]

    async def _strike_off(self, tenants: Sequence[str]) -> None:
        """Ends the watch over tenants whose counts are gone: erased, or given up for their age."""
        for some in self._calls(tenants, TENANTS_TO_A_CALL, str):
            async with answering_within(self._deadline):
                await self._forget_script(self._client, dict.fromkeys(some, ()))

    def _calls(
        self, items: Sequence[Item], most: int, tenant_of: Callable[[Item], str]
    ) -> Iterator[Sequence[Item]]:
        """The items as calls may have them: so many, and on a cluster of one shard."""
        groups: Iterable[Sequence[Item]] = (items,)
        if self._by_shard:
            by_shard: dict[int, list[Item]] = {}
            for item in items:
                by_shard.setdefault(keys.shard(tenant_of(item)), []).append(item)
            groups = by_shard.values()
        for group in groups:
            for first in range(0, len(group), most):
                yield group[first : first + most]


def _points(tenant: str, flat: Flat, known: dict[bytes, tuple[int, str]]) -> list[Point]:
    points = []
    for field, value in zip(flat[::2], flat[1::2], strict=True):
        names = known.get(field)
        if names is None:
            minute, _, meter = field.decode().partition("|")
            names = known[field] = int(minute), meter
        points.append(Point(tenant, *names, int(value)))
    return points


def _parts(points: list[Point]) -> Iterator[list[Point]]:
    """A tenant's points in parts that a batch can have: whole minutes."""
    if len(points) <= BATCH:
        yield points
        return
    part: list[Point] = []
    for _, of_minute in groupby(sorted(points, key=_minute), _minute):
        part += of_minute
        if len(part) >= BATCH:
            yield part
            part = []
    yield part


def _minute(point: Point) -> int:
    return point.minute
