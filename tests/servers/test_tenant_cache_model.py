"""The tenant cache against a model a person can check, in virtual time, on a real server."""

import asyncio
import math
from collections.abc import Iterator
from itertools import count
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st
from redis.asyncio import Redis

from partywall.cache import CacheFull, TenantCache

START = 2_000_000_000_000_000
NAMES = ["a", "b", "c", "v:a", "expiry", "{x}"]
KINDS = ["set"] * 10 + ["get"] * 5 + ["get_many", "delete", "pass", "server", "limit", "clear"]
KEYS = st.sampled_from(NAMES)


class Operation(NamedTuple):
    """One operation; each kind takes what it needs of it."""

    kind: str
    tenant: str
    key: str
    keys: list[str]
    ttl: float | None
    limit: int | None
    microseconds: int


OPERATIONS = st.builds(
    Operation,
    kind=st.sampled_from(KINDS),
    tenant=st.sampled_from(["acme", "acme2"]),
    key=KEYS,
    keys=st.lists(KEYS, max_size=4),
    ttl=st.sampled_from([None, 0.001, 0.05, 2.5, 60, 61]),
    limit=st.sampled_from([None, 0, 1, 2, 3, 4]),
    microseconds=st.sampled_from([1_000, 50_000, 1_000_000, 3_000_000]),
)
unique = count()


class Model:
    """One tenant's cache: what a person would write without Redis."""

    def __init__(self, policy: str) -> None:
        self.limit: int | None = 3
        self._evicts = policy == "evict"
        self._kept: dict[str, tuple[bytes, float]] = {}  # least recently used first

    def live(self, now: int) -> dict[str, bytes]:
        return {key: value for key, (value, until) in self._kept.items() if now // 1000 <= until}

    def set(self, key: str, value: bytes, ttl: float | None, now: int) -> bool:
        live = self.live(now)
        if key not in live and self.limit is not None:
            if self.limit == 0 or (not self._evicts and len(live) >= self.limit):
                return False
            for oldest in list(live)[: max(0, len(live) - self.limit + 1)]:
                del self._kept[oldest]
        self._kept.pop(key, None)
        until = math.inf if ttl is None else now // 1000 + math.ceil(ttl * 1000)
        self._kept[key] = (value, until)
        return True

    def get(self, key: str, now: int) -> bytes | None:
        if key not in self.live(now):
            return None
        self._kept[key] = self._kept.pop(key)
        return self._kept[key][0]

    def delete(self, key: str, now: int) -> bool:
        lived = key in self.live(now)
        self._kept.pop(key, None)
        return lived

    def clear(self, now: int) -> int:
        lived = len(self.live(now))
        self._kept.clear()
        return lived


class Pair:
    """Two tenants' caches on the server, and their models, under one clock."""

    def __init__(self, client: Redis, prefix: str, policy: str) -> None:
        self._now = START
        self._client = client
        self._models = {tenant: Model(policy) for tenant in ("acme", "acme2")}
        self._prefix = f"{prefix}:{next(unique)}"
        self.cache = TenantCache(
            client,
            limit=lambda tenant: self._models[tenant].limit,
            policy=policy,
            prefix=self._prefix,
            clock=self._tick,
        )

    def _tick(self) -> int:
        return self._now

    async def apply(self, asked: Operation) -> None:
        """Does it here and there, and finds no difference."""
        if asked.kind == "pass":
            self._now += asked.microseconds
            return
        self._now += 1  # two uses are never at the same moment
        await getattr(self, f"_{asked.kind}")(asked, self._models[asked.tenant])
        if asked.kind.startswith("get"):
            return
        for tenant, model in self._models.items():
            usage = await self.cache.usage(tenant=tenant)
            assert usage == (len(model.live(self._now)), model.limit)

    async def _set(self, asked: Operation, model: Model) -> None:
        value = f"{asked.tenant} {self._now}".encode()
        before = len(model.live(self._now))
        if model.set(asked.key, value, asked.ttl, self._now):
            await self.cache.set(asked.key, value, ttl=asked.ttl, tenant=asked.tenant)
        else:
            with pytest.raises(CacheFull) as refused:
                await self.cache.set(asked.key, value, ttl=asked.ttl, tenant=asked.tenant)
            assert (refused.value.tenant, refused.value.limit) == (asked.tenant, model.limit)
        index = f"{self._prefix}:{{{asked.tenant}}}:expiry"
        there = await self._client.zrangebyscore(index, self._now // 1000, "inf")
        assert {key.decode() for key in there} == set(model.live(self._now))
        assert model.limit is None or len(there) <= max(before, model.limit)

    async def _get(self, asked: Operation, model: Model) -> None:
        found = await self.cache.get(asked.key, tenant=asked.tenant)
        assert found == model.get(asked.key, self._now)

    async def _get_many(self, asked: Operation, model: Model) -> None:
        keys = sorted(set(asked.keys))  # used at one moment, and Redis orders those by name
        expected = [model.get(key, self._now) for key in keys]
        assert await self.cache.get_many(keys, tenant=asked.tenant) == expected

    async def _delete(self, asked: Operation, model: Model) -> None:
        deleted = await self.cache.delete(asked.key, tenant=asked.tenant)
        assert deleted == model.delete(asked.key, self._now)

    async def _clear(self, asked: Operation, model: Model) -> None:
        assert await self.cache.clear(tenant=asked.tenant) == model.clear(self._now)

    async def _limit(self, asked: Operation, model: Model) -> None:
        model.limit = asked.limit

    async def _server(self, asked: Operation, model: Model) -> None:
        """What the server does by itself in real time: it takes expired values away."""
        base = f"{self._prefix}:{{{asked.tenant}}}:v:"
        there = await self._client.keys(f"{base}*")
        live = {f"{base}{key}".encode() for key in model.live(self._now)}
        for name in set(there) - live:
            await self._client.delete(name)

    async def leave(self) -> None:
        """Nothing is left of a cleared cache."""
        for tenant in self._models:
            await self.cache.clear(tenant=tenant)
        assert await self._client.keys(f"{self._prefix}:*") == []


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as one:
        yield one


@pytest.mark.parametrize("policy", ["evict", "refuse"])
def test_the_cache_does_what_the_model_does(runner, valkey_url, key_prefix, policy):
    client = Redis.from_url(valkey_url)

    @given(st.lists(OPERATIONS, min_size=20, max_size=40))
    def agree(operations):
        async def follow() -> None:
            pair = Pair(client, key_prefix, policy)
            try:
                for operation in operations:
                    await pair.apply(operation)
            finally:
                await pair.leave()

        runner.run(follow())

    try:
        agree()
    finally:
        runner.run(client.aclose())
