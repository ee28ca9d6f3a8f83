"""Quotas in Redis alone: raced, repeated, sent twice, cut off, and on a cluster."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

import pytest
from redis.asyncio import Redis, RedisCluster

from partywall.quotas.periods import period_end, period_start
from partywall_service.engine.base import StoreError
from partywall_service.engine.connect import connect
from partywall_service.quotas import keys
from partywall_service.quotas.model import (
    Consume,
    Operation,
    Outcome,
    Release,
    Reserve,
    Settle,
    Terms,
    What,
)
from partywall_service.quotas.volatile import VolatileQuotas
from tests.engine.clients import SERVERS, connected

TERMS = {"users": Terms(50), "e-mails": Terms(1000, "month", thresholds=(80, 100))}


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest, key_prefix: str) -> AsyncIterator[Redis]:
    async with connected(request.param, request, key_prefix) as made:
        yield made


@pytest.fixture
def quotas(client: Redis, key_prefix: str) -> VolatileQuotas:
    return VolatileQuotas(client, prefix=key_prefix, deadline=30)


def operation(
    what: What, key: str | None = None, *, tenant: str = "acme", body: bytes = b"body"
) -> Operation:
    return Operation(tenant, what, TERMS, key or "", body, "tester", key, key is not None)


async def used(quotas: VolatileQuotas, tenant: str = "acme") -> list[tuple[int, int]]:
    return [(one.used, one.reserved) for one in await quotas.read(tenant, TERMS)]


async def test_five_hundred_at_once_over_two_sidecars_take_exactly_the_limit(
    client: Redis, key_prefix: str
):
    sidecars = [VolatileQuotas(client, prefix=key_prefix, deadline=30) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(sidecars[n % 2].apply(operation(Consume({"users": 1}))) for n in range(500))
    )
    assert Counter(one.allowed for one in outcomes) == {True: 50, False: 450}
    assert await used(sidecars[0]) == [(50, 0), (0, 0)]


async def test_what_is_held_counts_and_one_full_resource_denies_all(quotas: VolatileQuotas):
    held = await quotas.apply(operation(Reserve({"users": 49, "e-mails": 5}, "v1", 60)))
    assert held.allowed
    assert held.expires_at == held.at + timedelta(seconds=60)
    outcome = await quotas.apply(operation(Consume({"e-mails": 1, "users": 2})))
    assert outcome.denied == ("users",)
    assert [one.resource for one in outcome.quotas] == ["e-mails", "users"]
    assert await used(quotas) == [(0, 49), (0, 5)]
    settled = await quotas.apply(operation(Settle("v1", "committed", {"users": 1})))
    assert settled.status == "committed"
    assert await used(quotas) == [(1, 0), (0, 0)]


async def test_a_reservation_of_many_is_settled_once_by_whom_ever_comes_first(
    quotas: VolatileQuotas,
):
    await quotas.apply(operation(Reserve({"users": 20}, "v1", 60)))
    outcomes = await asyncio.gather(
        *(
            quotas.apply(operation(Settle("v1", status)))
            for status in ("committed", "cancelled") * 10
        )
    )
    refusals = Counter(one.refusal for one in outcomes)
    assert refusals == {None: 10, "conflict": 10}
    assert await used(quotas) == [(20, 0), (0, 0)]


async def test_a_key_used_by_many_at_once_consumes_once(client: Redis, key_prefix: str):
    sidecars = [VolatileQuotas(client, prefix=key_prefix, deadline=30) for _ in range(2)]
    outcomes = await asyncio.gather(
        *(sidecars[n % 2].apply(operation(Consume({"users": 1}), "once")) for n in range(40))
    )
    assert outcomes == outcomes[:1] * 40
    assert await used(sidecars[0]) == [(1, 0), (0, 0)]
    other = await sidecars[0].apply(operation(Consume({"users": 2}), "once", body=b"another"))
    assert other.refusal == "conflict"
    assert await used(sidecars[0]) == [(1, 0), (0, 0)]


async def test_a_kept_denial_is_told_again_as_it_was(quotas: VolatileQuotas):
    denied = await quotas.apply(operation(Consume({"users": 51}), "key"))
    assert denied.denied == ("users",)
    await quotas.apply(operation(Consume({"users": 7})))
    assert await quotas.apply(operation(Consume({"users": 51}), "key")) == denied


async def test_a_repeated_reservation_is_the_first_one(quotas: VolatileQuotas):
    first = await quotas.apply(operation(Reserve({"users": 2}, "v first", 60), "key"))
    again = await quotas.apply(operation(Reserve({"users": 2}, "v again", 60), "key"))
    assert again == first
    assert again.reservation == "v first"
    assert await used(quotas) == [(0, 2), (0, 0)]


async def test_answers_are_kept_for_a_day_at_least_and_levels_for_a_year(
    client: Redis, key_prefix: str, quotas: VolatileQuotas
):
    await quotas.apply(operation(Consume({"users": 1}), "key"))
    await quotas.apply(operation(Reserve({"users": 1}, "v1", 60)))
    day = 86_400
    assert await client.ttl(keys.answer(key_prefix, "acme", "key")) > 24 * 3600
    assert await client.ttl(keys.reservation(key_prefix, "acme", "v1")) > 2 * day
    assert await client.ttl(keys.levels(key_prefix, "acme")) > 399 * day
    assert await client.ttl(keys.holds(key_prefix, "acme")) > await client.ttl(
        keys.levels(key_prefix, "acme")
    )


@pytest.mark.parametrize("days", [-40, -1, 1, 400])
async def test_no_clock_of_a_sidecar_decides_what_period_it_is(
    client: Redis, key_prefix: str, days: int
):
    def clock() -> float:
        return (datetime.now(UTC) + timedelta(days=days)).timestamp()

    skewed = VolatileQuotas(client, prefix=key_prefix, deadline=30, clock=clock)
    outcome = await skewed.apply(operation(Consume({"e-mails": 1})))
    assert outcome.quotas[0].resets_at == period_end("month", period_start("month", outcome.at))
    assert await used(VolatileQuotas(client, prefix=key_prefix, deadline=30)) == [(0, 0), (1, 0)]


async def test_a_clock_that_never_agrees_is_an_error_and_consumes_nothing(
    client: Redis, key_prefix: str, quotas: VolatileQuotas
):
    days = iter(range(1000))
    lost = VolatileQuotas(
        client, prefix=key_prefix, deadline=30, clock=lambda: next(days) * 86_400.0
    )
    with pytest.raises(StoreError, match="another day"):
        await lost.apply(operation(Consume({"users": 1})))
    assert await used(quotas) == [(0, 0), (0, 0)]


class Resending:
    """A client whose connection breaks after the server has run a command: it is sent again."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    async def execute_command(self, *command: object) -> object:
        await self._client.execute_command(*command)
        return await self._client.execute_command(*command)


async def test_a_call_that_is_sent_twice_runs_once(
    client: Redis, key_prefix: str, quotas: VolatileQuotas
):
    await used(quotas)  # the script is known from here on
    twice = VolatileQuotas(Resending(client), prefix=key_prefix, deadline=30)
    with pytest.raises(StoreError, match="had run the call"):
        await twice.apply(operation(Consume({"users": 1}), "key"))
    assert await used(quotas) == [(1, 0), (0, 0)]
    assert (await quotas.apply(operation(Consume({"users": 1}), "key"))).quotas[0].used == 1


async def test_a_redis_that_is_gone_is_an_error(server_dir):
    client = connect(f"unix://{server_dir}/nothing.sock")
    quotas = VolatileQuotas(client, deadline=1)
    with pytest.raises(StoreError):
        await quotas.apply(operation(Consume({"users": 1})))
    with pytest.raises(StoreError):
        await quotas.read("acme", TERMS)
    await client.aclose()


async def test_crossings_are_told_once_and_again_after_a_fall(quotas: VolatileQuotas):
    async def do(what: What) -> list[int]:
        return [one.percent for one in (await quotas.apply(operation(what))).crossings]

    assert await do(Consume({"e-mails": 799})) == []
    assert await do(Consume({"e-mails": 1})) == [80]
    assert await do(Consume({"e-mails": 100})) == []
    assert await do(Release({"e-mails": 101})) == []
    assert await do(Consume({"e-mails": 201})) == [80, 100]
    assert [one.crossed for one in await quotas.read("acme", TERMS)] == [None, 100]


@pytest.fixture
async def cluster(request: pytest.FixtureRequest, key_prefix: str) -> AsyncIterator[RedisCluster]:
    async with connected("cluster", request, key_prefix) as made:
        yield made


async def test_on_a_cluster_each_shard_has_its_calls(cluster: RedisCluster, key_prefix: str):
    quotas = VolatileQuotas(cluster, prefix=key_prefix, deadline=30)

    async def fill(tenant: str) -> list[Outcome]:
        await quotas.apply(operation(Reserve({"users": 2}, "v1", 60), "held", tenant=tenant))
        await quotas.apply(operation(Settle("v1", "committed"), tenant=tenant))
        one = operation(Consume({"users": 1}), tenant=tenant)
        return await asyncio.gather(*(quotas.apply(one) for _ in range(60)))

    filled = await asyncio.gather(*(fill(f"tenant-{n}") for n in range(20)))
    assert [sum(one.allowed for one in outcomes) for outcomes in filled] == [48] * 20
    assert await used(quotas, "tenant-7") == [(50, 0), (0, 0)]
