"""What is counted of decisions, in the step that makes them, on a real Valkey."""

from collections import Counter
from random import Random

import pytest

from partywall_service.engine.base import Check, Count
from partywall_service.engine.redis import RedisEngine
from partywall_service.policy.model import Rate
from partywall_service.usage import keys

MINUTE = 60_000_000
START = 28_000_000 * MINUTE
RATES = (Rate(5, 1), Rate(40, 60))


@pytest.fixture
def engine(redis_client, key_prefix):
    return RedisEngine(redis_client, prefix=key_prefix, deadline=30)


async def counted(client, prefix, tenant):
    fields = await client.hgetall(keys.usage(prefix, tenant))
    return {name.decode(): int(value) for name, value in fields.items()}


async def test_every_decision_is_counted_once_in_its_minute(engine, redis_client, key_prefix):
    random = Random(6)
    expected = {tenant: Counter() for tenant in ("acme", "beta", "sdk", "metered")}
    now = START
    for _ in range(60):
        now += random.randrange(4_000_000)
        batch = []
        for _ in range(random.randrange(1, 20)):
            tenant = random.choice(list(expected))
            if random.random() < 0.2:
                batch.append(Count(tenant, "imports", (), random.choice(["admitted", "denied"])))
            else:
                batch.append(
                    Check(
                        tenant,
                        "requests",
                        RATES,
                        cost=random.randrange(1, 8),
                        dry_run=random.random() < 0.1,
                        enforce=tenant != "beta",
                    )
                )
        for question, verdict in zip(batch, await engine.decide(batch, now=now), strict=True):
            if isinstance(question, Count):
                outcome = question.outcome
            elif question.dry_run:
                continue
            elif verdict.allowed:
                outcome = "admitted"
            else:
                outcome = "denied" if question.enforce else "would_deny"
            meter = f"{now // MINUTE}|limits.{question.limit}.{outcome}"
            expected[question.tenant][meter] += 1
    for tenant, counts in expected.items():
        assert await counted(redis_client, key_prefix, tenant) == counts
        shard = keys.metered(key_prefix, keys.shard(tenant))
        assert await redis_client.sismember(shard, tenant)
    outcomes = {meter.rsplit(".", 1)[1] for counts in expected.values() for meter in counts}
    assert outcomes == {"admitted", "denied", "would_deny"}


async def test_a_clock_set_back_counts_after_what_the_roll_up_has_taken(
    engine, redis_client, key_prefix
):
    minute = START // MINUTE
    await redis_client.set(keys.rolled(key_prefix, keys.shard("acme")), minute + 2, ex=600)
    for _ in range(2):
        await engine.decide([Check("acme", "requests", RATES)], now=START)
    await engine.decide([Check("acme", "requests", RATES)], now=START + 3 * MINUTE)
    assert await counted(redis_client, key_prefix, "acme") == {
        f"{minute + 3}|limits.requests.admitted": 3
    }


async def test_without_metering_nothing_is_counted(redis_client, key_prefix):
    engine = RedisEngine(redis_client, prefix=key_prefix, deadline=30, metering=False)
    verdicts = await engine.decide(
        [Check("acme", "requests", RATES), Count("acme", "imports", (), "admitted")], now=START
    )
    assert [verdict.allowed for verdict in verdicts] == [True, True]
    assert await counted(redis_client, key_prefix, "acme") == {}
