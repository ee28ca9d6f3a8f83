"""Asks become permits: leases, returns, denials, what needs no units, and outages item by item."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from prometheus_client import CollectorRegistry

from partywall.protocol import (
    LONGEST_HOLD,
    LONGEST_HORIZON,
    Ask,
    GiveBack,
    Permit,
    PermitsAnswer,
    PermitsRequest,
    TierFacts,
)
from partywall_service.directory import Directory
from partywall_service.engine.base import Question, StoreError, Verdict
from partywall_service.engine.local import LocalLimiter
from partywall_service.engine.memory import MemoryEngine
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.records import Status, TenantRecord
from partywall_service.metrics import DecisionCounter
from partywall_service.permits import InvalidItem, Permits
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Limit, Policy, Rate, Tier

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FREE = {
    "requests": Limit("requests", (Rate(100, 60),)),
    "burst": Limit("burst", (Rate(10, 1), Rate(100, 60))),
    "free-for-all": Limit("free-for-all", ()),
    "watched": Limit("watched", (Rate(1, 60),), enforce=False),
    "open": Limit("open", (Rate(1, 60),), on_outage="open"),
    "closed": Limit("closed", (Rate(1, 60),), on_outage="closed"),
}
TIERS = {
    "free": Tier("free", limits=FREE),
    "pro": Tier(
        "pro", features=("sso",), limits={"requests": Limit("requests", (Rate(1000, 60),))}
    ),
    "top": Tier("top", features=("sso", "audit"), limits={"requests": Limit("requests", ())}),
}
PERMITS = "partywall_permits_total"
DEGRADED = "partywall_degraded_decisions_total"


class Tenants:
    """`acme` and `beta`, `gone` (suspended) and `big` (of the tier `pro`); nobody else."""

    def __init__(self) -> None:
        self.away = False
        self.readable = asyncio.Event()
        self.readable.set()

    async def load_many(self, tenants):
        if self.away:
            raise LedgerUnavailable("away")
        await self.readable.wait()
        known: dict[str, tuple[str, Status]] = {
            "acme": ("free", "active"),
            "beta": ("free", "active"),
            "gone": ("free", "suspended"),
            "big": ("pro", "active"),
        }
        return {
            tenant: (TenantRecord(tenant, tenant, *known[tenant], (), NOW, NOW), ())
            for tenant in tenants
            if tenant in known
        }


class Store:
    """The engine in memory, that can be away, and counts its calls."""

    def __init__(self) -> None:
        self.engine = MemoryEngine(clock=lambda: 1_800_000_000.0)
        self.away = False
        self.calls: list[int] = []

    async def decide(self, checks: Sequence[Question]) -> list[Verdict]:
        self.calls.append(len(checks))
        if self.away:
            raise StoreError("away")
        return await self.engine.decide(checks)


class Seen:
    """Who asked."""

    def __init__(self) -> None:
        self.instances: list[str] = []

    @property
    def sdk_instances(self) -> int:
        return max(1, len(set(self.instances)))

    def saw(self, instance: str) -> None:
        self.instances.append(instance)


class Sidecar:
    """What answers `/v1/permits`, with everything around it in memory."""

    def __init__(self) -> None:
        self.policy = PolicyHolder(policy_of(TIERS))
        self.registry = CollectorRegistry()
        self.tenants = Tenants()
        self.store = Store()
        self.seen = Seen()
        self.permits = Permits(
            Directory(self.tenants, self.policy, size=100),
            self.store,
            LocalLimiter(lambda: 1),
            self.policy,
            self.seen,
            DecisionCounter(self.registry),
        )

    async def answer(self, *asks: Ask, returns: Sequence[GiveBack] = ()) -> PermitsAnswer:
        return await self.permits.answer(
            PermitsRequest("one", list(asks), list(returns), within=0.5)
        )

    async def ask(
        self,
        tenant: str = "acme",
        limit: str = "requests",
        cost: int = 1,
        need: int | None = None,
        ahead: int = 0,
        lease: str | None = None,
    ) -> Permit:
        ask = Ask(tenant, limit, cost, cost if need is None else need, ahead, lease)
        (permit,) = (await self.answer(ask)).permits
        return permit

    def counted(self, limit: str, outcome: str, name: str = PERMITS, tier: str = "free") -> float:
        labels = {"tier": tier, "limit": limit, "outcome": outcome}
        return self.registry.get_sample_value(name, labels) or 0


def policy_of(tiers: dict[str, Tier]) -> Policy:
    return Policy(MappingProxyType(tiers), None, MappingProxyType({}), "")


@pytest.fixture
def sidecar() -> Sidecar:
    return Sidecar()


# What the engine grants.


async def test_what_is_needed_is_granted_for_the_horizon_at_most(sidecar):
    permit = await sidecar.ask(need=7)
    assert (permit.allowed, permit.tier, permit.reason, permit.granted) == (True, "free", None, 7)
    assert permit.seconds == LONGEST_HORIZON
    assert permit.windows[0].remaining == 93


async def test_what_is_granted_ahead_lasts_for_the_horizon_of_the_limit(sidecar):
    assert (await sidecar.ask(ahead=5, lease="a")).seconds == LONGEST_HORIZON
    permit = await sidecar.ask(limit="burst", ahead=1, lease="b")
    assert permit.seconds == 0.05  # a twentieth of its shortest window


async def test_needed_units_last_as_the_asker_said_and_a_lease_as_the_limit_says(sidecar):
    request = PermitsRequest(
        "one",
        [
            Ask("acme", "burst"),
            Ask("acme", "requests", 1, 2),
            Ask("acme", "burst", 1, 1, 1, "a"),
        ],
        within=0.03,
    )
    needed, long, leased = (await sidecar.permits.answer(request)).permits
    assert needed.seconds == 0.03
    assert long.seconds == LONGEST_HORIZON  # a hundredth of its window is no less
    assert (leased.seconds, leased.leased) == (0.05, True)


async def test_units_ahead_come_under_the_lease_and_what_was_needed_alone_does_not(sidecar):
    ahead = await sidecar.ask(need=4, ahead=8, lease="a")
    assert (ahead.granted, ahead.leased) == (12, True)
    alone = await sidecar.ask(need=4, lease="b")
    assert (alone.granted, alone.leased) == (4, False)


async def test_near_the_limit_nothing_is_leased_and_less_than_needed_is_granted(sidecar):
    await sidecar.ask(cost=95)
    some = await sidecar.ask(need=3, ahead=10, lease="a")
    assert (some.granted, some.leased) == (3, False)
    rest = await sidecar.ask(need=5, ahead=10, lease="b")
    assert (rest.granted, rest.leased) == (2, False)


async def test_a_returned_unit_can_be_granted_again_in_the_same_request(sidecar):
    first = await sidecar.ask(need=50, ahead=50, lease="a")
    assert first.granted == 56
    await sidecar.ask(cost=44)
    assert not (await sidecar.ask(cost=6)).allowed
    back = GiveBack("acme", "requests", "a", 6)
    answer = await sidecar.answer(Ask("acme", "requests", 6, 6), returns=[back])
    assert answer.permits[0].granted == 6


async def test_a_return_repeated_frees_nothing(sidecar):
    await sidecar.ask(need=50, ahead=50, lease="a")
    back = GiveBack("acme", "requests", "a", 6)
    answer = await sidecar.answer(returns=[back, back])
    assert answer.permits == []
    await sidecar.answer(returns=[back])
    assert (await sidecar.ask()).windows[0].remaining == 49
    assert sidecar.counted("requests", "returned") == 6


async def test_returns_that_nobody_can_know_are_passed_over(sidecar):
    lost = [
        GiveBack("nobody", "requests", "a", 1),
        GiveBack("acme", "no-such", "a", 1),
        GiveBack("acme", "free-for-all", "a", 1),
        GiveBack("acme", "requests", "never-leased", 1),
    ]
    answer = await sidecar.answer(Ask("acme", "requests"), returns=lost)
    assert answer.permits[0].windows[0].remaining == 99


async def test_a_suspended_tenant_may_still_give_back(sidecar):
    answer = await sidecar.answer(returns=[GiveBack("gone", "requests", "a", 1)])
    assert answer.permits == []
    assert sidecar.store.calls == [1]


async def test_one_request_is_one_call_of_the_engine_and_an_empty_one_is_none(sidecar):
    asks = [Ask("acme", "requests"), Ask("nobody", "requests"), Ask("beta", "burst")]
    await sidecar.answer(*asks, returns=[GiveBack("acme", "requests", "a", 1)])
    await sidecar.answer()
    await sidecar.answer(Ask("gone", "requests"))
    assert sidecar.store.calls == [3]


# Denials, and what holds without units.


async def test_a_denial_says_until_when_and_who_would_have_admitted_it(sidecar):
    permit = await sidecar.ask(cost=101)
    assert (permit.allowed, permit.reason, permit.granted) == (False, "limit-exceeded", 0)
    assert (permit.retry_after, permit.seconds) == (None, LONGEST_HOLD)
    assert permit.upgrade == "pro"
    assert (await sidecar.ask("big", cost=1001)).upgrade == "top"


async def test_a_denial_is_held_no_longer_than_it_lasts(sidecar):
    await sidecar.ask(limit="burst", cost=10)
    permit = await sidecar.ask(limit="burst")
    assert permit.retry_after > LONGEST_HOLD
    assert permit.seconds == LONGEST_HOLD
    sidecar.store.decide = soon
    permit = await sidecar.ask(limit="burst")
    assert (permit.retry_after, permit.seconds) == (0.03, 0.03)


async def soon(checks: Sequence[Question]) -> list[Verdict]:
    return [Verdict(allowed=False, retry_after=0.03, windows=()) for _ in checks]


async def test_what_nobody_knows_or_pays_for_is_refused_item_by_item(sidecar):
    answer = await sidecar.answer(
        Ask("nobody", "requests"),
        Ask("acme", "no-such"),
        Ask("gone", "requests"),
        Ask("acme", "open"),
    )
    refused = [
        Permit(False, tier, reason, seconds=LONGEST_HOLD, retry_after=None)
        for tier, reason in (
            (None, "unknown-tenant"),
            ("free", "unknown-limit"),
            ("free", "tenant-suspended"),
        )
    ]
    assert answer.permits[:3] == refused
    assert answer.permits[3].granted == 1


async def test_unlimited_needs_no_units(sidecar):
    permit = await sidecar.ask(limit="free-for-all", cost=10**9)
    assert permit == Permit(True, "free", seconds=LONGEST_HOLD)


async def test_observing_grants_what_there_is_and_then_allows_without_units(sidecar):
    within = await sidecar.ask(limit="watched")
    assert (within.granted, within.would_deny) == (1, False)
    over = await sidecar.ask(limit="watched")
    assert (over.allowed, over.reason, over.granted, over.would_deny) == (True, None, 0, True)
    assert 0 < over.seconds <= LONGEST_HOLD
    assert over.windows[0].remaining == 0
    assert (sidecar.counted("watched", "granted"), sidecar.counted("watched", "would_deny")) == (
        1,
        1,
    )


async def test_units_are_counted_where_they_are_granted_and_asks_where_they_are_denied(sidecar):
    await sidecar.ask(need=50, ahead=4, lease="a")
    await sidecar.ask(cost=100, need=200)
    await sidecar.ask("gone")
    assert sidecar.counted("requests", "granted") == 54
    assert sidecar.counted("requests", "denied") == 2
    assert sidecar.counted("requests", "granted", "partywall_decisions_total") == 0


# What every answer tells besides.


async def test_the_facts_of_the_tiers_it_names(sidecar):
    answer = await sidecar.answer(Ask("acme", "requests"), Ask("nobody", "requests"))
    assert answer.tiers == {"free": TierFacts((), {"sso": "pro", "audit": "top"})}
    answer = await sidecar.answer(Ask("big", "requests"), Ask("acme", "requests"))
    assert answer.tiers["pro"] == TierFacts(("sso",), {"audit": "top"})
    assert answer.tiers.keys() == {"free", "pro"}


async def test_a_new_policy_has_new_facts(sidecar):
    await sidecar.ask()
    sidecar.policy.current = policy_of({"free": Tier("free", features=("sso",), limits=FREE)})
    answer = await sidecar.answer(Ask("acme", "requests"))
    assert answer.tiers == {"free": TierFacts(("sso",))}


async def test_who_asks_is_seen_and_counted(sidecar):
    await sidecar.permits.answer(PermitsRequest("one"))
    answer = await sidecar.permits.answer(PermitsRequest("two"))
    assert sidecar.seen.instances == ["one", "two"]
    assert answer.instances == 2


# What cannot be asked.


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (Ask("-acme", "requests"), "asks[1].tenant"),
        (Ask("acme\n", "requests"), "asks[1].tenant"),
        (Ask("acme", "a b"), "asks[1].limit"),
        (Ask("nobody", "a b"), "asks[1].limit"),
        (Ask("acme", "requests", 2, 1), "asks[1].need"),
        (Ask("acme", "requests", 1, 1, 1), "asks[1].lease"),
    ],
)
async def test_what_cannot_be_refuses_the_whole_request_before_anything_is_charged(
    sidecar, ask, field
):
    with pytest.raises(InvalidItem) as caught:
        await sidecar.answer(Ask("acme", "requests"), ask)
    assert caught.value.field == field
    assert "expected" in str(caught.value)
    assert sidecar.store.calls == []
    assert sidecar.seen.instances == []


@pytest.mark.parametrize(
    ("back", "field"),
    [
        (GiveBack("a b", "requests", "a", 1), "returns[0].tenant"),
        (GiveBack("acme", "a b", "a", 1), "returns[0].limit"),
    ],
)
async def test_so_does_a_return_that_cannot_be(sidecar, back, field):
    with pytest.raises(InvalidItem) as caught:
        await sidecar.answer(Ask("acme", "requests"), returns=[back])
    assert caught.value.field == field


# Outages.


async def test_without_the_store_each_limit_answers_as_it_says(sidecar):
    sidecar.store.away = True
    answer = await sidecar.answer(
        Ask("acme", "burst", 1, 4, 4, "a"),
        Ask("acme", "open"),
        Ask("acme", "closed"),
        Ask("acme", "free-for-all"),
        Ask("gone", "requests"),
        returns=[GiveBack("acme", "requests", "a", 1)],
    )
    local, opened, closed, unlimited, suspended = answer.permits
    assert (local.allowed, local.degraded, local.granted, local.leased) == (True, True, 4, False)
    assert (local.seconds, len(local.windows)) == (0.05, 2)
    assert opened == Permit(True, "free", degraded=True, seconds=LONGEST_HOLD)
    assert (closed.allowed, closed.reason, closed.seconds) == (False, "unavailable", LONGEST_HOLD)
    assert (unlimited.allowed, unlimited.degraded) == (True, False)
    assert suspended.reason == "tenant-suspended"
    assert sidecar.counted("burst", "admitted", DEGRADED) == 1
    assert sidecar.counted("open", "admitted", DEGRADED) == 1
    assert sidecar.counted("burst", "granted") == 4


async def test_a_local_share_that_is_spent_denies_and_says_so(sidecar):
    sidecar.store.away = True
    await sidecar.ask(cost=100)
    permit = await sidecar.ask()
    assert (permit.allowed, permit.reason, permit.degraded) == (False, "limit-exceeded", True)
    assert 0 < permit.seconds <= LONGEST_HOLD
    assert sidecar.counted("requests", "denied", DEGRADED) == 1


async def test_an_outage_denies_nothing_that_is_only_observed(sidecar):
    sidecar.store.away = True
    await sidecar.ask(limit="watched")
    permit = await sidecar.ask(limit="watched")
    assert (permit.allowed, permit.degraded, permit.granted) == (True, True, 0)
    assert sidecar.counted("watched", "would_deny", DEGRADED) == 1


async def test_a_slow_read_of_one_tenant_does_not_hold_up_the_known_ones(sidecar):
    """A frozen PostgreSQL would take an SDK's whole batch past its deadline."""
    await sidecar.ask("acme")
    sidecar.tenants.readable.clear()
    answer = await sidecar.answer(Ask("beta", "requests"), Ask("acme", "requests"))
    beta, acme = answer.permits
    assert (beta.reason, beta.tier, acme.granted) == ("unavailable", None, 1)
    sidecar.tenants.readable.set()
    assert (await sidecar.ask("beta")).granted == 1


async def test_tenants_that_cannot_be_read_take_nothing_from_those_that_are_known(sidecar):
    await sidecar.ask("acme")
    sidecar.tenants.away = True
    asks = [Ask("beta", "requests"), Ask("acme", "requests"), Ask("big", "requests")]
    answer = await sidecar.answer(*asks, returns=[GiveBack("beta", "requests", "a", 1)])
    beta, acme, big = answer.permits
    assert acme.granted == 1
    for away in (beta, big):
        assert (away.allowed, away.tier, away.reason) == (False, None, "unavailable")
        assert away.seconds == 0
    with pytest.raises(InvalidItem):
        await sidecar.ask("beta", "a b")
