"""All keys of one tenant in the Redis of limits: windows, leases, quotas, counts of usage.

Their names are not known beforehand, as those of limits that the policy once had, or of leases. So
they are looked for among all keys, some at a time: a second for each few million.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any

from redis.asyncio import Redis, RedisCluster

from partywall_service.engine.connect import answering_within
from partywall_service.engine.keys import of_tenant
from partywall_service.usage.scripts import BuryScript

LOOKED_AT = 2000
"""Keys that one call looks at: half a millisecond of the server's."""

DEADLINE = 2.0
"""Seconds for one call. Nobody's check waits for it, and a busy server must not look like none."""


Row = dict[str, Any]
Value = str | dict[str, str]


class TenantKeys:
    """The keys of tenants in one Redis.

    Any method raises `StoreError` when Redis does not answer.

    Args:
        client: from `connect`, or any redis-py client.
        prefix: what every key of this installation starts with.
    """

    def __init__(self, client: Redis | RedisCluster, *, prefix: str = "pw") -> None:
        self._client = client
        self._prefix = prefix
        self._bury = BuryScript(prefix)

    async def erase(self, tenant: str) -> int:
        """Removes them, and leaves a tombstone for what is late, which does not tell whose it is.

        Returns:
            How many there were.
        """
        async with answering_within(DEADLINE):
            removed = int(await self._bury(self._client, tenant))
        async for names in self._found(tenant):
            async with answering_within(DEADLINE):
                removed += int(await self._client.unlink(*names))
        return removed

    async def told(self, tenant: str) -> AsyncIterator[list[Row]]:
        """What they hold, as JSON carries it; counts of usage are not told here.

        Yields:
            Windows, leases, quotas that live here, and of any other key its name after the
            tenant's, its type and its value; some at a time.
        """
        start = f"{of_tenant(self._prefix, tenant)}:".encode()
        async for names in self._found(tenant):
            async with answering_within(DEADLINE):
                held = await self._read(names)
            yield [
                row
                for name, value, life in held
                for row in _rows(name.removeprefix(start).decode(), value, life)
            ]

    async def _read(self, names: Sequence[bytes]) -> list[tuple[bytes, Value, int]]:
        """Of those that are still there: name, value, and milliseconds until it ends."""
        pipeline: Any = self._client.pipeline(transaction=False)  # redis-py knows text alone
        for name in names:
            pipeline.type(name)
            pipeline.pttl(name)
        answers = await pipeline.execute()
        pipeline = self._client.pipeline(transaction=False)
        there = []
        for name, kind, life in zip(names, answers[::2], answers[1::2], strict=True):
            if kind == b"string":
                pipeline.get(name)
            elif kind == b"hash":
                pipeline.hgetall(name)
            elif kind == b"zset":
                pipeline.zrange(name, 0, -1, withscores=True)
            else:  # it ended meanwhile: there are no others
                continue
            there.append((name, life))
        values = await pipeline.execute()
        return [
            (name, _value(answer), life)
            for (name, life), answer in zip(there, values, strict=True)
            if answer
        ]

    async def _found(self, tenant: str) -> AsyncIterator[list[bytes]]:
        """The names of its keys, some at a time, perhaps one of them twice."""
        # Neither ids nor prefixes have characters that a pattern would take for others.
        pattern = f"{of_tenant(self._prefix, tenant)}:*"
        async for names in self._scan(pattern):
            if names:
                yield names

    async def _scan(self, pattern: str) -> AsyncIterator[list[bytes]]:
        if isinstance(self._client, RedisCluster):
            async with answering_within(DEADLINE):
                await self._client.initialize()
            # Every node: while a shard moves, two have a part of it.
            for node in self._client.get_primaries():
                cursor: Any = 0
                while cursor is not None:
                    async with answering_within(DEADLINE):
                        cursors, names = await self._client.scan(
                            cursor, match=pattern, count=LOOKED_AT, target_nodes=node
                        )
                    cursor = next(iter(cursors.values())) or None
                    yield names
            return
        cursor = 0
        while cursor is not None:
            async with answering_within(DEADLINE):
                cursor, names = await self._client.scan(cursor, match=pattern, count=LOOKED_AT)
            cursor = cursor or None
            yield names


def _value(answer: Any) -> Value:  # noqa: ANN401 - of three shapes
    if isinstance(answer, bytes):
        return answer.decode()
    if isinstance(answer, Mapping):
        return {field.decode(): value.decode() for field, value in answer.items()}
    return {member.decode(): f"{score:.0f}" for member, score in answer}


def _rows(name: str, value: Value, life: int) -> list[Row]:
    """What is told of one key, by its name after the tenant's."""
    match name.split(":"):
        case ["usage"]:
            return []
        case ["window", limit, seconds]:
            row: Row = {"kind": "window", "limit": limit, "window": int(seconds)}
        case ["lease", limit, lease]:
            row = {"kind": "lease", "limit": limit, "lease": lease}
        case ["quota", "levels"] if isinstance(value, dict):
            return [
                {"kind": "quota", "durable": False, "resource": resource}
                | dict(zip(("used", "reserved", "version"), map(int, level.split()), strict=False))
                for resource, level in sorted(value.items())
            ]
        case _:
            row = {"kind": "redis", "key": name}
    return [row | {"value": value, "expires_in": life / 1000 if life >= 0 else None}]
