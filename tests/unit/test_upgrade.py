"""Which tier would have admitted a denied check."""

from types import MappingProxyType

import pytest

from partywall.decision import Decision, Window
from partywall_service.policy.model import Limit, Policy, Rate, Tier
from partywall_service.policy.upgrade import upgrade


def policy(**tiers: tuple[Rate, ...] | None) -> Policy:
    """Tiers in this order; each with the rates of `requests`, or (None) without that limit."""
    made = {
        name: Tier(name, limits={} if rates is None else {"requests": Limit("requests", rates)})
        for name, rates in tiers.items()
    }
    return Policy(MappingProxyType(made), None, MappingProxyType({}), "")


def denied(*windows: Window, tier: str | None = "free", cost: int = 1) -> Decision:
    return Decision(False, "acme", tier, "requests", cost, "limit-exceeded", windows=windows)


MINUTE = (Rate(100, 60),)
FULL = Window(quota=100, window=60, remaining=0, reset_after=60.0)


def test_the_next_tier_with_room_is_named() -> None:
    tiers = policy(free=MINUTE, pro=(Rate(1000, 60),), enterprise=(Rate(10_000, 60),))
    assert upgrade(tiers, denied(FULL)) == "pro"


def test_a_tier_without_room_is_passed_over() -> None:
    tiers = policy(free=MINUTE, pro=(Rate(1000, 60),), enterprise=(Rate(10_000, 60),))
    assert upgrade(tiers, denied(FULL, cost=901)) == "enterprise"


@pytest.mark.parametrize(("cost", "named"), [(900, "pro"), (901, None)])
def test_what_is_spent_already_counts_in_the_other_tier(cost, named) -> None:
    tiers = policy(free=MINUTE, pro=(Rate(1000, 60),))
    assert upgrade(tiers, denied(FULL, cost=cost)) == named


def test_an_unlimited_tier_admits_anything() -> None:
    assert upgrade(policy(free=MINUTE, pro=()), denied(FULL, cost=2**53 - 1)) == "pro"


def test_every_window_of_the_other_tier_must_have_room() -> None:
    second = Window(quota=10, window=1, remaining=0, reset_after=1.0)
    tiers = policy(
        free=(Rate(10, 1), *MINUTE),
        pro=(Rate(10, 1), Rate(1000, 60)),
        enterprise=(Rate(20, 1), Rate(1000, 60)),
    )
    assert upgrade(tiers, denied(second, FULL)) == "enterprise"


@pytest.mark.parametrize(("cost", "named"), [(5, "pro"), (6, None)])
def test_a_window_that_only_the_other_tier_has_is_taken_as_unspent(cost, named) -> None:
    tiers = policy(free=MINUTE, pro=(Rate(5, 1), Rate(1000, 60)))
    assert upgrade(tiers, denied(FULL, cost=cost)) == named


def test_an_earlier_tier_is_no_upgrade_though_it_has_room() -> None:
    assert upgrade(policy(legacy=(), free=MINUTE), denied(FULL)) is None


def test_the_own_tier_is_no_upgrade_though_an_override_is_below_it() -> None:
    overridden = Window(quota=10, window=60, remaining=0, reset_after=60.0)
    assert upgrade(policy(free=MINUTE), denied(overridden)) is None
    assert upgrade(policy(free=MINUTE, pro=()), denied(overridden)) == "pro"


def test_the_last_tier_has_none_after_it() -> None:
    assert upgrade(policy(pro=(Rate(1000, 60),), free=MINUTE), denied(FULL)) is None


@pytest.mark.parametrize("tier", [None, "bygone"])
def test_a_tier_that_the_policy_does_not_have_leads_to_none(tier) -> None:
    assert upgrade(policy(free=MINUTE, pro=()), denied(FULL, tier=tier)) is None


def test_a_tier_that_does_not_know_the_limit_is_passed_over() -> None:
    tiers = policy(free=MINUTE, pro=None, enterprise=())
    assert upgrade(tiers, denied(FULL)) == "enterprise"


def test_a_tier_that_only_observes_would_have_admitted() -> None:
    watched = Limit("requests", MINUTE, enforce=False)
    tiers = {"free": Tier("free"), "trial": Tier("trial", limits={"requests": watched})}
    policy_ = Policy(MappingProxyType(tiers), None, MappingProxyType({}), "")
    assert upgrade(policy_, denied(FULL)) == "trial"
