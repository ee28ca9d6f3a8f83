"""Sidecars and SDK processes count each other through Redis, until one is silent."""

from collections.abc import AsyncIterator, Callable

import pytest

from partywall_service.engine import keys, presence
from partywall_service.engine.base import StoreError
from partywall_service.engine.connect import connect
from partywall_service.engine.presence import MOST_TOLD, SDK_SILENCE, Presence

PATIENT = 30.0


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def sidecar(valkey_url: str, key_prefix: str) -> AsyncIterator[Callable[..., Presence]]:
    client = connect(valkey_url)

    def make(name: str, clock: Callable[[], float] = Clock()) -> Presence:  # noqa: B008 - never moved
        return Presence(client, name, prefix=key_prefix, deadline=PATIENT, clock=clock)

    yield make
    await client.aclose()


async def test_what_one_sidecar_saw_all_count(sidecar):
    one, two = sidecar("one"), sidecar("two")
    one.saw("a")
    one.saw("b")
    two.saw("b")
    two.saw("c")
    for each in (one, two, one):
        await each.beat()
    assert (one.sdk_instances, two.sdk_instances) == (3, 3)
    assert (one.instances, two.instances) == (2, 2)


async def test_there_is_at_least_one_and_what_it_saw_itself(sidecar):
    one = sidecar("one")
    assert one.sdk_instances == 1
    await one.beat()
    assert one.sdk_instances == 1
    one.saw("a")
    one.saw("b")
    one.saw("a")
    assert one.sdk_instances == 2  # before any beat told of them


async def test_a_silent_process_is_forgotten_here_and_in_redis(sidecar, redis_client, key_prefix):
    clock = Clock()
    one = sidecar("one", clock)
    one.saw("quiet")
    clock.now += SDK_SILENCE - 1
    one.saw("busy")
    await one.beat()
    assert one.sdk_instances == 2
    seconds, _ = await redis_client.time()
    await redis_client.zadd(keys.instances(key_prefix, "sdk"), {"quiet": seconds - SDK_SILENCE - 1})
    clock.now += 2
    await one.beat()
    assert one.sdk_instances == 1


async def test_a_beat_tells_of_so_many_and_the_next_of_the_others(sidecar):
    one, two = sidecar("one"), sidecar("two")
    for number in range(MOST_TOLD + 5):
        one.saw(f"p{number}")
    await one.beat()
    await two.beat()
    assert two.sdk_instances == MOST_TOLD
    await one.beat()
    await two.beat()
    assert two.sdk_instances == MOST_TOLD + 5


async def test_what_was_told_is_not_told_again(sidecar, redis_client, key_prefix):
    one = sidecar("one")
    one.saw("a")
    await one.beat()
    await redis_client.delete(keys.instances(key_prefix, "sdk"))
    await one.beat()
    assert await redis_client.exists(keys.instances(key_prefix, "sdk")) == 0
    one.saw("a")
    await one.beat()
    assert await redis_client.zcard(keys.instances(key_prefix, "sdk")) == 1


async def test_whoever_invents_ids_takes_no_more_than_so_much_memory(sidecar, monkeypatch):
    monkeypatch.setattr(presence, "MOST_SEEN", 3)
    one = sidecar("one")
    for number in range(10):
        one.saw(f"p{number}")
    one.saw("p0")
    assert one.sdk_instances == 3


async def test_through_an_outage_the_counts_stay(own_valkey):
    client = connect(own_valkey.url)
    one = Presence(client, "one", prefix="pw", deadline=1.0)
    two = Presence(client, "two", prefix="pw", deadline=1.0)
    two.saw("a")
    two.saw("b")
    await two.beat()
    await one.beat()
    own_valkey.stop()
    with pytest.raises(StoreError):
        await one.beat()
    assert (one.instances, one.sdk_instances) == (2, 2)
    await client.aclose()


async def test_on_a_cluster_one_node_counts_both(valkey_cluster, key_prefix):
    client = connect(valkey_cluster.url)
    one = Presence(client, "one", prefix=key_prefix, deadline=PATIENT)
    one.saw("a")
    one.saw("b")
    await one.beat()
    assert (one.instances, one.sdk_instances) == (1, 2)
    for kind in ("sidecars", "sdk"):
        await client.delete(keys.instances(key_prefix, kind))
    await client.aclose()
