"""What PostgreSQL denied a moment ago is denied without it; nothing else is, ever."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import structlog
from msgspec.structs import replace as changed
from redis.asyncio import Redis

from partywall_service.embedded import ValkeyServer
from partywall_service.engine.connect import connect
from partywall_service.quotas import keys
from partywall_service.quotas.gate import MOST_TENANTS, RedisGate, _life
from partywall_service.quotas.model import Outcome, QuotaState, Terms
from tests.engine.clients import SERVERS, connected

USERS = Terms(5)
EMAILS = Terms(500, "day")


MINUTE = timedelta(minutes=1)


@pytest.fixture(autouse=True)
def _remembering_for_longer(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test may fail because the machine was slow for a second."""
    monkeypatch.setattr("partywall_service.quotas.gate.REMEMBERED", MINUTE)


@pytest.fixture(params=SERVERS)
async def client(request: pytest.FixtureRequest, key_prefix: str) -> AsyncIterator[Redis]:
    async with connected(request.param, request, key_prefix) as made:
        yield made


class Clock:
    """Seconds, from any start."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Gates:
    """Sidecars on one Redis, under one clock."""

    def __init__(self, client: Redis, prefix: str) -> None:
        self.clock = Clock()
        self._client = client
        self._prefix = prefix

    def new(self) -> RedisGate:
        return RedisGate(self._client, prefix=self._prefix, deadline=30, clock=self.clock)


@pytest.fixture
def gates(client: Redis, key_prefix: str) -> Gates:
    return Gates(client, key_prefix)


def state(used: int, version: int, resource: str = "users", **more: object) -> QuotaState:
    return changed(
        QuotaState(resource, "count", 5, used, 0, max(0, 5 - used), None, None, version), **more
    )


def outcome(*states: QuotaState, denied: tuple[str, ...] = (), ago: float = 0) -> Outcome:
    at = datetime.now(UTC) - timedelta(seconds=ago)
    return Outcome(states or (state(5, 7),), denied, at=at)


DENIED = ("users",)


async def test_a_denial_is_told_again_under_the_terms_that_apply_now(gates: Gates):
    gate = gates.new()
    await gate.note("acme", outcome(denied=DENIED))
    denial = await gate.denial("acme", {"users": 1}, {"users": replace(USERS, limit=4)})
    assert denial.denied == DENIED
    (users,) = denial.quotas
    assert (users.limit, users.used, users.remaining, users.version) == (4, 5, 0, 7)
    assert abs(denial.at - datetime.now(UTC)) < timedelta(minutes=1)


@pytest.mark.parametrize(
    "terms", [Terms(6), Terms(None), Terms(5, "day")], ids=["raised", "unlimited", "refilling"]
)
async def test_other_terms_are_a_question_for_postgresql(gates: Gates, terms: Terms):
    gate = gates.new()
    await gate.note("acme", outcome(denied=DENIED))
    assert await gate.denial("acme", {"users": 1}, {"users": terms}) is None


async def test_what_reservations_hold_may_be_free_by_now(gates: Gates):
    gate = gates.new()
    await gate.note("acme", outcome(state(3, 7, reserved=2), denied=DENIED))
    assert await gate.denial("acme", {"users": 1}, {"users": USERS}) is None
    assert (await gate.denial("acme", {"users": 3}, {"users": USERS})).denied == DENIED


async def test_an_answer_names_all_that_was_asked_for(gates: Gates):
    gate = gates.new()
    terms = {"users": USERS, "e-mails": EMAILS}
    items = {"e-mails": 2, "users": 1}
    await gate.note("acme", outcome(denied=DENIED))
    assert await gate.denial("acme", items, terms) is None
    later = datetime.now(UTC) + timedelta(days=1)
    emails = state(3, 1, "e-mails", period="day", resets_at=later)
    await gate.note("acme", outcome(emails, state(5, 7), denied=DENIED))
    denial = await gate.denial("acme", items, terms)
    assert denial.denied == DENIED
    assert [one.resource for one in denial.quotas] == ["e-mails", "users"]
    assert denial.quotas[0].remaining == 497


async def test_what_is_lowered_by_another_sidecar_is_free_at_once(gates: Gates):
    gate, other = gates.new(), gates.new()
    await gate.note("acme", outcome(denied=DENIED))
    await other.note("acme", outcome(state(4, 8)))
    assert await gate.denial("acme", {"users": 1}, {"users": USERS}) is None
    assert (await gate.denial("acme", {"users": 2}, {"users": USERS})).quotas[0].version == 8


async def test_an_older_level_never_replaces_a_newer(gates: Gates):
    gate = gates.new()
    await gate.note("acme", outcome(state(4, 10)))
    await gate.note("acme", outcome(state(5, 9), denied=DENIED))
    assert await gate.denial("acme", {"users": 1}, {"users": USERS}) is None


async def test_one_sidecars_denial_spares_another_that_was_denied_too(gates: Gates):
    gate, other = gates.new(), gates.new()
    await gate.note("acme", outcome(denied=DENIED))
    await gate.note("beta", outcome(denied=DENIED))
    assert await other.denial("acme", {"users": 1}, {"users": USERS}) is None
    await other.note("acme", outcome(state(1, 1, "projects"), denied=("projects",)))
    assert (await other.denial("acme", {"users": 1}, {"users": USERS})).denied == DENIED


async def test_redis_is_not_asked_for_a_tenant_that_was_not_denied_of_late(
    gates: Gates, client: Redis, monkeypatch: pytest.MonkeyPatch
):
    gate = gates.new()
    await gate.note("acme", outcome(state(4, 8)))
    await gate.note("beta", outcome(denied=DENIED))
    gates.clock.now += MINUTE.total_seconds()

    async def no_command(*_: object) -> None:
        pytest.fail("Redis was asked")

    with monkeypatch.context() as patched:
        patched.setattr(client, "execute_command", no_command)
        for tenant in ("acme", "beta", "gamma"):
            assert await gate.denial(tenant, {"users": 1}, {"users": USERS}) is None


@pytest.mark.parametrize(
    ("resets_in", "milliseconds"), [(None, 1000), (3600, 1000), (5.9, 900), (5, 0), (-10, 0)]
)
def test_a_level_is_remembered_for_a_second_and_not_past_its_period(
    monkeypatch: pytest.MonkeyPatch, resets_in: float | None, milliseconds: int
):
    """Nor in the seconds that it may take to reach Redis."""
    monkeypatch.undo()
    at = datetime(2026, 1, 31, 23, tzinfo=UTC)
    resets_at = None if resets_in is None else at + timedelta(seconds=resets_in)
    assert _life(state(5, 7, resets_at=resets_at), at) == milliseconds


async def test_what_is_remembered_has_an_end(gates: Gates, client: Redis, key_prefix: str):
    name = keys.remembered(key_prefix, "acme", "users")
    await gates.new().note("acme", outcome(denied=DENIED))
    assert 0 < await client.pttl(name) <= 60_000
    ends = datetime.now(UTC) + timedelta(seconds=1)
    await gates.new().note("acme", outcome(state(5, 7, resets_at=ends), denied=DENIED))
    assert not await client.exists(name)


async def test_a_period_that_is_over_by_the_clock_of_redis_is_not_denied(
    gates: Gates, client: Redis, key_prefix: str
):
    """A level may reach Redis late: it was frozen, or the network was."""
    gate = gates.new()
    later = datetime.now(UTC) + timedelta(days=1)
    full = state(500, 7, "e-mails", period="day", resets_at=later)
    await gate.note("acme", outcome(full, denied=("e-mails",)))
    items, terms = {"e-mails": 1}, {"e-mails": EMAILS}
    assert (await gate.denial("acme", items, terms)).denied == ("e-mails",)
    name = keys.remembered(key_prefix, "acme", "e-mails")
    kept = (await client.get(name)).decode()
    over = (datetime.now(UTC) - timedelta(seconds=1)).isoformat().replace("+00:00", "Z")
    ends = later.isoformat().replace("+00:00", "Z")
    assert ends in kept
    await client.set(name, kept.replace(ends, over), px=1000)
    assert await gate.denial("acme", items, terms) is None


async def test_the_repetition_of_an_old_answer_is_not_remembered(gates: Gates):
    gate = gates.new()
    await gate.note("acme", outcome(denied=DENIED))
    await gate.note("acme", outcome(state(5, 3), denied=DENIED, ago=3600))
    assert await gate.denial("acme", {"users": 1}, {"users": USERS}) is None


async def test_what_is_remembered_of_denied_tenants_is_bounded(gates: Gates):
    gate = gates.new()
    for number in range(MOST_TENANTS + 10):
        gate._saw_denied(f"tenant-{number}")
    assert len(gate._denied) == MOST_TENANTS
    assert not gate._was_denied("tenant-9")
    assert gate._was_denied("tenant-10")
    gates.clock.now += MINUTE.total_seconds()
    gate._saw_denied("another")
    assert len(gate._denied) == 1


async def test_a_redis_that_is_gone_denies_nothing_and_is_said_once(own_valkey: ValkeyServer):
    client = connect(own_valkey.url)
    clock = Clock()
    gate = RedisGate(client, deadline=30, clock=clock)
    await gate.note("acme", outcome(denied=DENIED))
    own_valkey.stop()
    with structlog.testing.capture_logs() as logs:
        assert await gate.denial("acme", {"users": 1}, {"users": USERS}) is None
        for _ in range(3):
            await gate.note("acme", outcome(denied=DENIED))
            clock.now += 0.3
        assert await gate.denial("acme", {"users": 1}, {"users": USERS}) is None
        own_valkey.start()
        await gate.note("acme", outcome(denied=DENIED))
        clock.now += 0.3
        assert (await gate.denial("acme", {"users": 1}, {"users": USERS})).denied == DENIED
    assert [one["event"] for one in logs] == ["quotas.gate_lost", "quotas.gate_back"]
    await client.aclose()


async def test_on_a_cluster_each_tenant_has_its_shard(
    request: pytest.FixtureRequest, key_prefix: str
):
    async with connected("cluster", request, key_prefix) as cluster:
        gate = RedisGate(cluster, prefix=key_prefix, deadline=30, clock=Clock())
        tenants = [f"tenant-{number}" for number in range(10)]
        for tenant in tenants:
            await gate.note(tenant, outcome(denied=DENIED))
        for tenant in tenants:
            denial = await gate.denial(tenant, {"users": 1}, {"users": USERS})
            assert denial.denied == DENIED
