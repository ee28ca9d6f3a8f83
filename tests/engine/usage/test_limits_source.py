"""What the roll-up fetches is whole and final; what it removes was kept; a clock loses nothing."""

import pytest

from partywall_service.engine.base import StoreError
from partywall_service.engine.connect import connect
from partywall_service.usage import keys, limits_source
from partywall_service.usage.adding import Adder
from partywall_service.usage.limits_source import LimitsSource
from partywall_service.usage.source import Point
from tests.engine.clients import connected
from tests.engine.usage.reporting import ADMITTED, PATIENT, Clock, report, totals


async def closed(source: LimitsSource) -> list[Point]:
    return [point async for batch in source.closed() for point in batch]


async def metered(client, prefix: str) -> set[bytes]:
    sets = [await client.smembers(keys.metered(prefix, n)) for n in range(keys.SHARDS)]
    return set().union(*sets)


async def test_only_minutes_that_are_over_are_closed(adder, source, clock):
    await adder.add(report("acme", "beta"))
    assert await closed(source) == []
    clock.minute += 1
    await adder.add(report("acme", sequence=2))
    before = clock.minute - 1
    over = [("acme", before, ADMITTED, 1), ("beta", before, ADMITTED, 1)]
    assert sorted(await closed(source)) == over
    assert sorted(await source.held()) == [over[0], ("acme", clock.minute, ADMITTED, 1), over[1]]


async def test_one_tenants_counts_are_its_own(adder, source):
    await adder.add(report("acme", "beta", "gamma"))
    assert totals(await source.held(["beta", "nobody"])) == {("beta", ADMITTED): 1}
    assert await source.held([]) == []


async def test_what_is_kept_elsewhere_is_forgotten_and_no_more(
    adder, source, clock, client, key_prefix
):
    await adder.add(report("acme", "beta"))
    clock.minute += 1
    await adder.add(report("acme", sequence=2))
    await source.forget(await closed(source))
    assert await source.held() == [("acme", clock.minute, ADMITTED, 1)]
    assert await metered(client, key_prefix) == {b"acme"}
    await source.forget([])


async def test_a_value_that_changed_meanwhile_is_kept(adder, source, clock):
    await adder.add(report("acme", "beta"))
    clock.minute += 1
    read = await closed(source)
    clock.minute -= 1  # set back
    await adder.add(report("acme", sequence=2))
    clock.minute += 1
    await source.forget(read)
    assert await closed(source) == [("acme", clock.minute - 1, ADMITTED, 2)]


async def test_forgetting_twice_and_what_is_not_there_changes_nothing(adder, source, clock):
    await adder.add(report("acme"))
    clock.minute += 1
    read = await closed(source)
    await source.forget(read)
    await adder.add(report("acme", sequence=2))
    await source.forget(read)
    await source.forget([Point("nobody", 7, ADMITTED, 1)])
    assert await source.held() == [("acme", clock.minute, ADMITTED, 1)]


async def test_after_a_clock_was_set_back_counts_go_on_after_the_newest_minute_fetched(
    adder, source, clock
):
    await adder.add(report("acme"))
    clock.minute += 1
    fetched = await closed(source)
    await source.forget(fetched)
    clock.minute -= 60
    for sequence in (2, 3):
        await adder.add(report("acme", sequence=sequence))
    assert await source.held() == [("acme", fetched[0].minute + 1, ADMITTED, 2)]
    assert await closed(source) == []  # by this clock that minute is to come
    clock.minute += 60
    await adder.add(report("acme", sequence=4))
    clock.minute += 1
    fetched += await closed(source)
    assert [point.value for point in fetched] == [1, 3]
    assert len({point.minute for point in fetched}) == 2


async def test_a_minute_that_was_not_fetched_yet_is_counted_on(adder, source, clock):
    """A clock set back into a minute that is still there needs no other."""
    await adder.add(report("acme"))
    clock.minute += 1
    await adder.add(report("acme", sequence=2))
    clock.minute -= 1
    await adder.add(report("acme", sequence=3))
    assert [point.value for point in sorted(await source.held())] == [2, 1]


async def test_who_was_erased_is_struck_off(adder, source, client, key_prefix):
    await adder.add(report("acme", "beta"))
    await client.delete(keys.usage(key_prefix, "acme"))
    assert await closed(source) == []
    assert await metered(client, key_prefix) == {b"beta"}


async def test_a_batch_has_whole_minutes_of_a_tenant(adder, source, clock, monkeypatch):
    monkeypatch.setattr(limits_source, "BATCH", 10)
    meters = {f"requests_{n}xx": 1 for n in (2, 3, 4)}
    for sequence in range(1, 8):
        await adder.add(report("acme", "beta", "gamma", sequence=sequence, **meters))
        clock.minute += 1
    batches = [batch async for batch in source.closed()]
    assert sum(map(len, batches)) == 3 * 7 * 4
    assert all(10 <= len(batch) <= 13 + 10 for batch in batches[:-1])
    at = {}
    for number, batch in enumerate(batches):
        for point in batch:
            assert at.setdefault(point[:2], number) == number
    for batch in batches:
        await source.forget(batch)
    assert await source.held() == []


async def test_however_much_there_is_calls_stay_short(
    adder, source, clock, monkeypatch, client, key_prefix
):
    """Few fields to a call, so that some tenants have more than one may read."""
    monkeypatch.setattr(limits_source, "CALL", 5)
    monkeypatch.setattr(limits_source, "TENANTS_TO_A_CALL", 4)
    monkeypatch.setattr(limits_source, "MEMBERS", 3)
    tenants = [f"t{n}" for n in range(20)]
    for sequence in range(1, 5):
        await adder.add(report(*tenants, sequence=sequence, requests_2xx=sequence))
        await adder.add(report("big", sequence=sequence, instance="two", requests_5xx=1))
        clock.minute += 1
    await adder.add(report("big", sequence=9))
    points = await closed(source)
    assert len(points) == len(set(points)) == 21 * 4 * 2
    assert totals(await source.held())["t7", "requests.2xx"] == 1 + 2 + 3 + 4
    await source.forget(points)
    assert await source.held() == [("big", clock.minute, ADMITTED, 1)]
    assert await metered(client, key_prefix) == {b"big"}


async def test_on_a_cluster(request, valkey_cluster, key_prefix):
    clock = Clock()
    tenants = [f"t{n}" for n in range(30)]
    async with connected("cluster", request, key_prefix) as client:
        adder = Adder(client, prefix=key_prefix, deadline=PATIENT, now=clock)
        source = LimitsSource(client, key_prefix, PATIENT, now=clock)
        await adder.add(report(*tenants))
        clock.minute += 1
        points = await closed(source)
        assert totals(points) == {(tenant, ADMITTED): 1 for tenant in tenants}
        assert sorted(await source.held(tenants)) == sorted(points)
        await source.forget(points)
        assert await source.held() == []
        assert await metered(client, key_prefix) == set()


async def test_where_redis_is_away_it_says_so():
    client = connect("redis://127.0.0.1:1")
    source = LimitsSource(client, "pw", 1.0)
    with pytest.raises(StoreError):
        await closed(source)
    with pytest.raises(StoreError):
        await source.held()
    with pytest.raises(StoreError):
        await source.forget([Point("acme", 7, ADMITTED, 1)])
    await client.aclose()
