"""Checks become decisions: tiers, suspension, observation, and outages by `on_outage`."""

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import pytest
from prometheus_client import CollectorRegistry

from partywall_service.admission import (
    Admission,
    CheckRequest,
    LimitClosed,
    MalformedName,
    UnknownLimit,
    UnknownTenant,
)
from partywall_service.directory import Directory
from partywall_service.engine.base import Check, StoreError, Verdict
from partywall_service.engine.local import LocalLimiter
from partywall_service.engine.memory import MemoryEngine
from partywall_service.ledger.records import Status, TenantRecord
from partywall_service.metrics import DecisionCounter
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Limit, Policy, Rate, Tier

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LIMITS = {
    "requests": Limit("requests", (Rate(2, 1), Rate(3, 60))),
    "free-for-all": Limit("free-for-all", ()),
    "watched": Limit("watched", (Rate(1, 60),), enforce=False),
    "open": Limit("open", (Rate(1, 60),), on_outage="open"),
    "closed": Limit("closed", (Rate(1, 60),), on_outage="closed"),
}


class Tenants:
    """`acme` and `gone` (suspended); nobody else."""

    async def load_many(self, tenants):
        statuses: dict[str, Status] = {"acme": "active", "gone": "suspended"}
        return {
            tenant: (TenantRecord(tenant, tenant, "free", statuses[tenant], (), NOW, NOW), ())
            for tenant in tenants
            if tenant in statuses
        }


class AwayStore:
    async def decide(self, checks: Sequence[Check]) -> list[Verdict]:
        raise StoreError("away")


class KeptCounts:
    """What the shared store could not count."""

    def __init__(self) -> None:
        self.counts: Counter[tuple[str, str, str]] = Counter()

    def count(self, tenant: str, limit: str, outcome: str) -> None:
        self.counts[tenant, limit, outcome] += 1


class Setup:
    def __init__(self, engine, default_tier: str | None = None) -> None:
        self.kept = KeptCounts()
        tiers = MappingProxyType({"free": Tier("free", limits=LIMITS)})
        policy = PolicyHolder(Policy(tiers, default_tier, MappingProxyType({}), ""))
        self.registry = CollectorRegistry()
        self.admission = Admission(
            Directory(Tenants(), policy, size=100),
            engine,
            LocalLimiter(lambda: 1),
            DecisionCounter(self.registry),
            self.kept,
        )

    def counted(self, limit: str, outcome: str, name: str = "partywall_decisions_total") -> float:
        labels = {"tier": "free", "limit": limit, "outcome": outcome}
        return self.registry.get_sample_value(name, labels) or 0


@pytest.fixture
def up() -> Setup:
    return Setup(MemoryEngine(clock=lambda: 1_800_000_000.0))


@pytest.fixture
def away() -> Setup:
    return Setup(AwayStore())


async def test_a_decision_tells_the_tightest_window(up):
    decision = await up.admission.check(CheckRequest("acme"))
    assert decision.allowed
    assert (decision.tier, decision.limit, decision.cost) == ("free", "requests", 1)
    assert decision.remaining == 1
    assert [window.remaining for window in decision.windows] == [1, 2]
    assert decision.reset_after == max(window.reset_after for window in decision.windows)


async def test_a_denial_says_why_and_when(up):
    decision = await up.admission.check(CheckRequest("acme", cost=3))
    assert (decision.allowed, decision.reason, decision.retry_after) == (
        False,
        "limit-exceeded",
        None,
    )


async def test_unlimited_has_no_windows(up):
    decision = await up.admission.check(CheckRequest("acme", "free-for-all", 10**9))
    assert (decision.allowed, decision.remaining, decision.windows) == (True, None, ())


async def test_a_suspended_tenant_is_denied_and_nothing_is_charged(up):
    decision = await up.admission.check(CheckRequest("gone"))
    assert (decision.allowed, decision.reason, decision.tier) == (False, "tenant-suspended", "free")


async def test_observing_admits_what_it_would_deny_and_counts_it(up):
    decisions = [await up.admission.check(CheckRequest("acme", "watched")) for _ in range(3)]
    assert all(decision.allowed and decision.reason is None for decision in decisions)
    assert (up.counted("watched", "admitted"), up.counted("watched", "would_deny")) == (1, 2)


async def test_unknown_names_raise_for_one_check_and_are_values_in_a_list(up):
    with pytest.raises(UnknownTenant):
        await up.admission.check(CheckRequest("nobody"))
    with pytest.raises(UnknownLimit):
        await up.admission.check(CheckRequest("acme", "no-such"))
    stranger, limit, fine = await up.admission.check_many(
        [CheckRequest("nobody"), CheckRequest("acme", "no-such"), CheckRequest("acme")]
    )
    assert (stranger.reason, stranger.tier, stranger.allowed) == ("unknown-tenant", None, False)
    assert (limit.reason, limit.tier, limit.allowed) == ("unknown-limit", "free", False)
    assert fine.allowed


@pytest.mark.parametrize("tenant", ["", "-acme", "a b", "acme\n", "a" * 129, "ä", "a:b", "a{b}"])
async def test_a_malformed_tenant_refuses_the_whole_list_before_anything_is_charged(up, tenant):
    with pytest.raises(MalformedName) as caught:
        await up.admission.check_many([CheckRequest("acme", cost=2), CheckRequest(tenant)])
    assert (caught.value.place, caught.value.field) == (1, "tenant")
    assert (await up.admission.check(CheckRequest("acme", cost=2))).allowed


async def test_a_default_tier_takes_in_whoever_is_not_registered():
    setup = Setup(MemoryEngine(), default_tier="free")
    assert (await setup.admission.check(CheckRequest("nobody"))).tier == "free"


async def test_dry_runs_are_not_counted(up):
    await up.admission.check(CheckRequest("acme", dry_run=True))
    assert up.counted("requests", "admitted") == 0


async def test_an_outage_is_answered_locally_marked_and_counted(away):
    decisions = [await away.admission.check(CheckRequest("acme")) for _ in range(3)]
    assert [decision.allowed for decision in decisions] == [True, True, False]
    assert all(decision.degraded for decision in decisions)
    degraded = "partywall_degraded_decisions_total"
    assert away.counted("requests", "admitted", degraded) == 2
    assert away.counted("requests", "denied", degraded) == 1


async def test_an_open_limit_admits_in_an_outage(away):
    decisions = [await away.admission.check(CheckRequest("acme", "open")) for _ in range(3)]
    assert all(decision.allowed and decision.degraded for decision in decisions)


async def test_a_closed_limit_is_unavailable_in_an_outage_never_denied(away):
    with pytest.raises(LimitClosed):
        await away.admission.check(CheckRequest("acme", "closed"))


async def test_decisions_of_an_outage_are_kept_to_be_counted(away):
    await away.admission.check_many(
        [
            CheckRequest("acme"),
            CheckRequest("acme", cost=3),
            CheckRequest("acme", "watched", 2),
            CheckRequest("acme", "open"),
            CheckRequest("acme", "free-for-all"),
            CheckRequest("gone", "open"),
            CheckRequest("acme", "open", dry_run=True),
        ]
    )
    assert away.kept.counts == {
        ("acme", "requests", "admitted"): 1,
        ("acme", "requests", "denied"): 1,
        ("acme", "requests", "degraded"): 2,
        ("acme", "watched", "would_deny"): 1,
        ("acme", "watched", "degraded"): 1,
        ("acme", "open", "admitted"): 1,
        ("acme", "open", "degraded"): 1,
        # Decided without any store: only their counting had to wait.
        ("acme", "free-for-all", "admitted"): 1,
        ("gone", "open", "denied"): 1,
    }


async def test_what_needs_no_windows_is_counted_with_the_rest(up):
    await up.admission.check_many([CheckRequest("acme", "free-for-all"), CheckRequest("gone")])
    assert up.kept.counts == {}
    assert up.counted("free-for-all", "admitted") == up.counted("requests", "denied") == 1
