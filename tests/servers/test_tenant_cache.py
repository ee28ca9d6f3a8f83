"""The tenant cache on real servers: isolation, races, expiry, lost keys, clusters."""

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from redis.asyncio import Redis, RedisCluster
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import ResponseError

from partywall import NoTenant, Partywall, Tenant, UnknownResource, running_as
from partywall.cache import CacheFull, TenantCache
from partywall.errors import ConfigurationError
from tests.support.sidecar import ADMIN_TOKEN

POLICIES = ["evict", "refuse"]


@pytest.fixture
def cache(redis_client, key_prefix) -> TenantCache[bytes | str, bytes]:
    return TenantCache(redis_client, limit=3, ttl=60, prefix=key_prefix)


async def values_of(client: Redis, prefix: str, tenant: str) -> set[str]:
    """The tenant's keys that are really there, by KEYS, which the cache itself never uses."""
    base = f"{prefix}:{{{tenant}}}:v:"
    return {name.decode().removeprefix(base) for name in await client.keys(f"{base}*")}


async def until(true: Callable[[], Awaitable[bool]]) -> None:
    """Asks again until it is so; Redis tells nobody that a key has expired."""
    async with asyncio.timeout(10):
        while not await true():  # noqa: ASYNC110 - as the docstring says
            await asyncio.sleep(0.005)


async def test_what_is_set_comes_back_as_bytes(cache):
    await cache.set("a", b"\x00\xff", tenant="acme")
    await cache.set("b", "grün", tenant="acme")
    await cache.set("ключ:{x} \n", b"", tenant="acme")
    assert await cache.get("a", tenant="acme") == b"\x00\xff"
    found = await cache.get_many(["b", "nothing", "ключ:{x} \n"], tenant="acme")
    assert found == ["grün".encode(), None, b""]
    assert await cache.get_many([], tenant="acme") == []


async def test_a_client_that_decodes_answers_gets_bytes_all_the_same(valkey_url, key_prefix):
    for policy in POLICIES:
        async with Redis.from_url(valkey_url, decode_responses=True) as client:
            cache = TenantCache(client, limit=3, ttl=60, prefix=key_prefix, policy=policy)
            await cache.set("a", b"\xff", tenant=policy)
            assert await cache.get("a", tenant=policy) == b"\xff"
            assert await cache.get_many(["b", "a"], tenant=policy) == [None, b"\xff"]


async def test_values_are_what_the_pair_makes_of_them(redis_client, key_prefix):
    cache = TenantCache(
        redis_client, limit=3, ttl=60, prefix=key_prefix, dumps=json.dumps, loads=json.loads
    )
    await cache.set("a", {"n": 1}, tenant="acme")
    assert await cache.get("a", tenant="acme") == {"n": 1}


async def test_the_current_tenant_is_whose_it_is(cache):
    with running_as(Tenant("acme")):
        await cache.set("a", b"acme's")
        with running_as(Tenant("beta")):
            assert await cache.get("a") is None
        assert await cache.get("a") == b"acme's"
    with pytest.raises(NoTenant):
        await cache.get("a")


@pytest.mark.parametrize("policy", POLICIES)
async def test_many_at_once_never_pass_the_cap_and_touch_no_neighbour(
    valkey_url, key_prefix, redis_client, policy
):
    limit, neighbours = 20, ["acme2", "acm", "v"]
    async with Redis.from_url(valkey_url) as another_process:
        caches = [
            TenantCache(client, limit=limit, ttl=60, prefix=key_prefix, policy=policy)
            for client in (redis_client, another_process)
        ]
        names = {f"k{number}" for number in range(limit)}
        for neighbour in neighbours:
            for name in names:
                await caches[0].set(name, neighbour, tenant=neighbour)
        most, refused = 0, 0

        async def fill(cache: TenantCache[bytes | str, bytes], first: int) -> None:
            nonlocal most, refused
            for number in range(first, first + 20):
                try:
                    await cache.set(f"k{number}", "acme", tenant="acme")
                except CacheFull:
                    refused += 1
                most = max(most, len(await values_of(redis_client, key_prefix, "acme")))

        await asyncio.gather(*(fill(caches[task % 2], task * 20) for task in range(20)))
        assert most == limit
        assert refused == (0 if policy == "evict" else 400 - limit)
        assert await caches[0].usage(tenant="acme") == (limit, limit)
        for neighbour in neighbours:
            assert await values_of(redis_client, key_prefix, neighbour) == names
            assert await caches[1].usage(tenant=neighbour) == (limit, limit)


@pytest.mark.parametrize("policy", POLICIES)
async def test_room_comes_back_when_redis_lets_a_key_expire(redis_client, key_prefix, policy):
    cache = TenantCache(redis_client, limit=2, prefix=key_prefix, policy=policy)
    await cache.set("long", "1", ttl=60, tenant="acme")
    await cache.set("short", "1", ttl=0.05, tenant="acme")

    async def gone() -> bool:
        return await cache.get("short", tenant="acme") is None

    await until(gone)
    assert await cache.usage(tenant="acme") == (1, 2)
    assert not await cache.exists("short", tenant="acme")
    await cache.set("new", "1", ttl=60, tenant="acme")
    assert await values_of(redis_client, key_prefix, "acme") == {"long", "new"}


async def test_nothing_stays_when_every_key_has_expired(redis_client, key_prefix):
    cache = TenantCache(redis_client, limit=10, ttl=0.05, prefix=key_prefix)
    for number in range(5):
        await cache.set(f"k{number}", "1", tenant="acme")

    async def gone() -> bool:
        return await redis_client.keys(f"{key_prefix}*") == []

    await until(gone)


async def test_a_key_without_ttl_stays_and_takes_its_index_along_when_it_leaves(
    redis_client, key_prefix
):
    cache = TenantCache(redis_client, limit=10, ttl=60, prefix=key_prefix)
    await cache.set("for ever", "1", ttl=math.inf, tenant="acme")
    await cache.set("a while", "1", tenant="acme")
    indexes = [f"{key_prefix}:{{acme}}:{name}" for name in ("expiry", "used")]
    assert [await redis_client.ttl(name) for name in indexes] == [-1, -1]
    assert await cache.delete("for ever", tenant="acme")
    for name in indexes:
        assert 60 <= await redis_client.ttl(name) <= 70


async def test_a_lowered_cap_keeps_what_exists_and_makes_room_in_steps(redis_client, key_prefix):
    cap = 1200
    kept = TenantCache(redis_client, limit=lambda tenant: cap, ttl=60, prefix=key_prefix)
    refusing = TenantCache(redis_client, limit=10, ttl=60, prefix=key_prefix, policy="refuse")
    await asyncio.gather(*(kept.set(f"k{number}", "1", tenant="acme") for number in range(1200)))
    cap = 10
    await kept.set("k7", "changed", tenant="acme")
    assert (await kept.usage(tenant="acme")).keys == 1200
    with pytest.raises(CacheFull, match="cache of tenant 'acme' is full: it may have 10 keys"):
        await refusing.set("new", "1", tenant="acme")
    assert (await kept.usage(tenant="acme")).keys == 1200
    await kept.set("new", "1", tenant="acme")
    assert await kept.usage(tenant="acme") == (10, 10)
    assert {"k7", "new"} <= await values_of(redis_client, key_prefix, "acme")


async def test_clear_takes_all_of_one_tenant_and_nothing_of_another(redis_client, key_prefix):
    cache = TenantCache(redis_client, limit=lambda tenant: None, ttl=60, prefix=key_prefix)
    await asyncio.gather(*(cache.set(f"k{number}", "1", tenant="acme") for number in range(1100)))
    await cache.set("a", "1", tenant="beta")
    assert await cache.clear(tenant="acme") == 1100
    assert await cache.usage(tenant="acme") == (0, None)
    assert await redis_client.keys(f"{key_prefix}:{{acme}}*") == []
    assert await cache.get("a", tenant="beta") == b"1"
    assert await cache.clear(tenant="acme") == 0


async def test_a_value_that_redis_evicted_gives_its_room_back(redis_client, key_prefix):
    cache = TenantCache(redis_client, limit=3, ttl=60, prefix=key_prefix, policy="refuse")
    for key in ("a", "b", "c"):
        await cache.set(key, "1", tenant="acme")
    await redis_client.delete(f"{key_prefix}:{{acme}}:v:b")
    await cache.set("d", "1", tenant="acme")
    assert await values_of(redis_client, key_prefix, "acme") == {"a", "c", "d"}
    with pytest.raises(CacheFull):
        await cache.set("e", "1", tenant="acme")


async def test_a_lost_index_by_use_costs_the_order_and_not_the_cap(cache, redis_client, key_prefix):
    for key in ("a", "b", "c"):
        await cache.set(key, "1", tenant="acme")
    await redis_client.delete(f"{key_prefix}:{{acme}}:used")
    await cache.set("d", "1", tenant="acme")
    assert len(await values_of(redis_client, key_prefix, "acme")) == 3


async def test_a_server_that_forgot_its_scripts_is_sent_them_again(cache, redis_client):
    await cache.set("a", "1", tenant="acme")
    await redis_client.script_flush()
    assert await cache.get("a", tenant="acme") == b"1"


async def test_errors_of_redis_pass_through(own_valkey):
    async with Redis.from_url(own_valkey.url) as client:
        cache = TenantCache(client, limit=3, ttl=60)
        await client.set("pwcache:{acme}:expiry", "not a sorted set")
        with pytest.raises(ResponseError, match="WRONGTYPE"):
            await cache.set("a", "1", tenant="acme")
        own_valkey.stop()
        for policy in POLICIES:
            down = TenantCache(client, limit=3, policy=policy)
            with pytest.raises(RedisConnectionError):
                await down.get("a", tenant="acme")


async def test_get_or_set_loads_once_however_many_miss_at_once(cache, monkeypatch):
    loads = 0
    joined = 0
    go_on = asyncio.Event()
    all_joined = asyncio.Event()
    join = cache._loading.join

    def counted(key, load):
        # A miss that Redis answered, but this process read only after the load had ended, is none
        # of the same moment: all must have come before the load may end.
        nonlocal joined
        joined += 1
        if joined == 10:
            all_joined.set()
        return join(key, load)

    monkeypatch.setattr(cache._loading, "join", counted)

    async def load() -> str:
        nonlocal loads
        loads += 1
        await go_on.wait()
        return "loaded"

    asked = [asyncio.create_task(cache.get_or_set("a", load, tenant="acme")) for _ in range(10)]
    await all_joined.wait()
    asked[0].cancel()
    go_on.set()
    results = await asyncio.gather(*asked, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1:] == [b"loaded"] * 9
    assert await cache.get_or_set("a", load, tenant="acme") == b"loaded"
    assert loads == 1
    assert await cache.get_or_set("a", load, tenant="beta") == b"loaded"
    assert loads == 2


async def test_get_or_set_gives_what_has_no_room(redis_client, key_prefix):
    cache = TenantCache(redis_client, limit=0, prefix=key_prefix)

    async def load() -> str:
        return "loaded"

    assert await cache.get_or_set("a", load, tenant="acme") == b"loaded"
    assert await cache.usage(tenant="acme") == (0, 0)


async def test_get_or_set_passes_the_loaders_error_on_and_keeps_nothing(cache):
    async def load() -> str:
        raise LookupError("no such report")

    with pytest.raises(LookupError):
        await cache.get_or_set("a", load, tenant="acme")
    assert await cache.usage(tenant="acme") == (0, 3)


@pytest.mark.parametrize("tenant", ["", "a}:v:x", "{b}", "a:b", "a b", None])
async def test_no_tenant_can_be_named_so_that_it_meets_anothers_keys(cache, tenant):
    with running_as(Tenant(tenant or "")), pytest.raises(ConfigurationError, match="tenant's id"):
        await cache.set("a", "1", tenant=tenant)


@pytest.mark.parametrize(
    ("key", "value", "ttl"),
    [
        ("", "1", 1),
        (b"a", "1", 1),
        ("a", 1, 1),
        ("a", "1", 0),
        ("a", "1", -1),
        ("a", "1", math.nan),
    ],
)
async def test_what_cannot_be_set_is_refused_by_name(cache, key, value, ttl):
    with pytest.raises(ConfigurationError, match=r"expected .*got "):
        await cache.set(key, value, ttl=ttl, tenant="acme")


@asynccontextmanager
async def cluster_client(url: str) -> AsyncIterator[RedisCluster]:
    host = url.removeprefix("redis+cluster://").split(",")[0]
    async with RedisCluster.from_url(f"redis://{host}") as client:
        yield client


@pytest.mark.parametrize("policy", POLICIES)
async def test_a_cluster_does_as_well(valkey_cluster, policy):
    tenants = [f"tenant{number}" for number in range(12)]
    async with cluster_client(valkey_cluster.url) as client:
        cache = TenantCache(client, limit=3, ttl=60, prefix=f"cluster-{policy}", policy=policy)
        assert len({client.keyslot(f"{{{tenant}}}") * 3 // 16384 for tenant in tenants}) == 3
        for tenant in tenants:
            for key in ("a", "b", "c", "a"):
                await cache.set(key, tenant, tenant=tenant)
            if policy == "evict":
                await cache.set("d", tenant, tenant=tenant)
            else:
                with pytest.raises(CacheFull):
                    await cache.set("d", tenant, tenant=tenant)
        for tenant in tenants:
            mine = tenant.encode()
            found = await cache.get_many(["a", "b", "c", "d"], tenant=tenant)
            assert found == ([mine, None, mine, mine] if policy == "evict" else [mine] * 3 + [None])
            assert await cache.get("a", tenant=tenant) == mine
            assert await cache.delete("a", tenant=tenant)
            assert await cache.clear(tenant=tenant) == 2


async def test_the_tiers_quota_is_the_cap(sidecar, redis_client, key_prefix):
    tiers = 'default_tier = "free"\n[tiers.free.quotas]\ncache_keys = 2\n'
    server = sidecar(quotas=tiers)
    async with Partywall(server.url, ADMIN_TOKEN) as pw:
        cache = TenantCache(redis_client, client=pw, ttl=60, prefix=f"{key_prefix}:cache")
        for key in ("a", "b", "c"):
            await cache.set(key, "1", tenant="acme")
        assert await cache.usage(tenant="acme") == (2, 2)
        unknown = TenantCache(redis_client, client=pw, resource="cache")
        with pytest.raises(UnknownResource):
            await unknown.usage(tenant="acme")
