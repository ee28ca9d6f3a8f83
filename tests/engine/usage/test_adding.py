"""A report is added once, to the minute that runs, whoever gives it and however often."""

import asyncio

import pytest
from redis.asyncio import Redis

from partywall.protocol import TenantUsage, UsageReport
from partywall_service.engine.base import StoreError
from partywall_service.engine.connect import connect
from partywall_service.usage import adding, keys
from partywall_service.usage.adding import Adder
from partywall_service.usage.limits_source import LimitsSource
from tests.engine.clients import connected
from tests.engine.usage.reporting import ADMITTED, PATIENT, report, totals

TENANTS = [f"t{number}" for number in range(40)]


async def test_a_report_is_counted_in_the_minute_that_runs(adder, source, clock):
    assert await adder.add(report("acme", "beta", requests_2xx=7)) == 2
    clock.minute += 1
    await adder.add(report("acme", sequence=2))
    assert sorted(await source.held()) == [
        ("acme", clock.minute - 1, ADMITTED, 1),
        ("acme", clock.minute - 1, "requests.2xx", 7),
        ("acme", clock.minute, ADMITTED, 1),
        ("beta", clock.minute - 1, ADMITTED, 1),
        ("beta", clock.minute - 1, "requests.2xx", 7),
    ]


async def test_the_same_report_again_changes_nothing_and_has_the_same_answer(adder, source):
    again = report(*TENANTS)
    assert {await adder.add(again) for _ in range(3)} == {len(TENANTS)}
    await adder.add(report(*TENANTS, sequence=2))
    assert await adder.add(again) == len(TENANTS)  # one that was long on its way
    assert set(totals(await source.held()).values()) == {2}


async def test_two_processes_have_numbers_of_their_own(adder, source):
    await adder.add(report("acme", instance="one"))
    await adder.add(report("acme", instance="two"))
    assert totals(await source.held()) == {("acme", ADMITTED): 2}


async def test_microseconds_add_up_without_loss(adder, source):
    for sequence in (1, 2, 3):
        await adder.add(report("acme", sequence=sequence, requests_2xx=10**13 - 1))
    assert totals(await source.held())["acme", "requests.2xx"] == 3 * (10**13 - 1)


async def test_what_comes_first_and_what_comes_later_in_a_minute_both_count(adder, source):
    await adder.add(report("acme"))
    await adder.add(report("acme", sequence=2, requests_2xx=3))
    await adder.add(report("acme", sequence=3, requests_2xx=1, requests_5xx=1))
    assert totals(await source.held()) == {
        ("acme", ADMITTED): 3,
        ("acme", "requests.2xx"): 4,
        ("acme", "requests.5xx"): 1,
    }


async def test_a_tenant_may_have_more_meters_than_a_command_takes(adder, source):
    many = {f"limits.l{number}.admitted": number + 1 for number in range(2500)}
    for sequence in (1, 2):
        await adder.add(UsageReport("one", sequence, 0.0, [TenantUsage("acme", many)]))
    assert totals(await source.held()) == {("acme", m): 2 * n for m, n in many.items()}


async def test_what_was_counted_before_an_erasure_is_dropped(
    adder, source, client, key_prefix, clock
):
    await client.set(keys.gone(key_prefix, "acme"), clock() - 60_000_000, ex=60)
    for sequence, age in enumerate((61, 3600, 58), start=1):  # and what may have been before
        await adder.add(report("acme", "beta", sequence=sequence, age=age))
    assert totals(await source.held()) == {("beta", ADMITTED): 3}


async def test_what_a_tenant_does_after_its_erasure_is_counted(
    adder, source, client, key_prefix, clock
):
    await client.set(keys.gone(key_prefix, "acme"), clock() - 60_000_000, ex=60)
    assert await adder.add(report("acme", age=30)) == 1
    assert totals(await source.held()) == {("acme", ADMITTED): 1}


async def test_who_is_erased_is_not_among_those_that_are_counted(adder, client, key_prefix, clock):
    await client.set(keys.gone(key_prefix, "acme"), clock(), ex=60)
    assert await adder.add(report("acme", "beta")) == 1
    assert await adder.add(report("acme", "beta")) == 1


async def test_by_the_servers_clock_too(client, key_prefix):
    adder = Adder(client, prefix=key_prefix, deadline=PATIENT)
    await adder.add(report("acme", age=3600))
    assert totals(await LimitsSource(client, key_prefix, PATIENT).held()) == {("acme", ADMITTED): 1}


# On a real server alone.


async def test_sendings_at_once_and_by_several_sidecars_count_once(valkey_url, key_prefix):
    clients = [connect(valkey_url) for _ in range(4)]
    adders = [Adder(client, prefix=key_prefix, deadline=PATIENT) for client in clients]
    for sequence in range(1, 6):
        again = report(*TENANTS, sequence=sequence)
        answers = await asyncio.gather(*(adder.add(again) for adder in adders * 5))
        assert set(answers) == {len(TENANTS)}
    held = await LimitsSource(clients[0], key_prefix, PATIENT).held()
    assert totals(held) == {(tenant, ADMITTED): 5 for tenant in TENANTS}
    for client in clients:
        await client.aclose()


async def test_a_hundred_processes_sum_exactly(valkey_url, key_prefix, soak):
    client = connect(valkey_url)
    adder = Adder(client, prefix=key_prefix, deadline=PATIENT)
    reports = 100 if soak else 5

    async def process(number: int) -> None:
        for sequence in range(1, reports + 1):
            sent = report(*TENANTS[number % 20 :], sequence=sequence, instance=f"p{number}")
            await adder.add(sent)
            if sequence % 2:
                await adder.add(sent)  # its answer was lost

    await asyncio.gather(*map(process, range(100)))
    held = totals(await LimitsSource(client, key_prefix, PATIENT).held())
    assert sum(held.values()) == reports * sum(len(TENANTS) - n % 20 for n in range(100))
    assert held[TENANTS[-1], ADMITTED] == reports * 100
    assert held[TENANTS[0], ADMITTED] == reports * 5
    await client.aclose()


async def test_where_a_part_failed_the_same_report_adds_the_rest(
    valkey_url, key_prefix, monkeypatch
):
    client = connect(valkey_url)
    adder = Adder(client, prefix=key_prefix, deadline=PATIENT)
    source = LimitsSource(client, key_prefix, PATIENT)
    run = adding.AddScript.__call__
    failing = iter((False, False, True))

    async def break_off(self, *args, **named):
        if next(failing, False):
            raise ConnectionError("a test broke it off")
        return await run(self, *args, **named)

    monkeypatch.setattr(adding.AddScript, "__call__", break_off)
    with pytest.raises(StoreError, match="broke it off"):
        await adder.add(report(*TENANTS))
    added = totals(await source.held())
    assert 0 < len(added) < len(TENANTS)
    assert await adder.add(report(*TENANTS)) == len(TENANTS)
    assert totals(await source.held()) == {(tenant, ADMITTED): 1 for tenant in TENANTS}
    await client.aclose()


async def test_on_a_cluster_a_lost_node_holds_up_its_own_tenants_alone(
    request, valkey_cluster, key_prefix
):
    async with connected("cluster", request, key_prefix) as client:
        adder = Adder(client, prefix=key_prefix, deadline=1.0)
        source = LimitsSource(client, key_prefix, PATIENT)
        async with Redis(port=valkey_cluster.ports[2]) as lost:
            await lost.execute_command("CLIENT", "PAUSE", 60_000, "WRITE")
            try:
                with pytest.raises(StoreError):
                    await adder.add(report(*TENANTS))
            finally:
                await lost.execute_command("CLIENT", "UNPAUSE")
        added = totals(await source.held())
        assert added
        for _ in range(2):
            assert await adder.add(report(*TENANTS)) == len(TENANTS)
        assert totals(await source.held()) == {(tenant, ADMITTED): 1 for tenant in TENANTS}
        assert set(totals(await source.held(TENANTS[:5])).values()) == {1}


async def test_where_redis_is_away_it_says_so():
    client = connect("redis://127.0.0.1:1")
    with pytest.raises(StoreError):
        await Adder(client, prefix="pw", deadline=1.0).add(report("acme"))
    await client.aclose()
