"""Which tier would have admitted what this one denied, or has what this one lacks.

Always the first such tier after the tenant's own, in the file's order.
"""

from collections.abc import Iterable, Sequence

from partywall.decision import Decision, Window
from partywall_service.policy.model import Policy, Tier


def upgrade(policy: Policy, decision: Decision) -> str | None:
    """The next tier that would have admitted a denied check, or None.

    None also when the decision's tier is unknown to the policy.
    """
    if decision.tier is None:
        return None
    return next_tier(policy, decision.tier, decision.limit, decision.cost, decision.windows)


def next_tier(
    policy: Policy, tier: str, limit: str, cost: int, windows: Sequence[Window]
) -> str | None:
    """The next tier that would have admitted `cost`, as the windows of `limit` stand; or None."""
    spent = {window.window: window.quota - window.remaining for window in windows}
    return next(
        (
            further.name
            for further in _after(policy, tier)
            if _would_admit(further, limit, cost, spent)
        ),
        None,
    )


def feature_upgrades(policy: Policy, tier: str) -> dict[str, str]:
    """For each feature that `tier` lacks and a later one has: the first such tier."""
    own = policy.tiers[tier].features
    upgrades: dict[str, str] = {}
    for further in _after(policy, tier):
        for feature in further.features:
            if feature not in own:
                upgrades.setdefault(feature, further.name)
    return upgrades


def _after(policy: Policy, tier: str) -> Iterable[Tier]:
    names = list(policy.tiers)
    if tier not in policy.tiers:
        return ()
    return [policy.tiers[name] for name in names[names.index(tier) + 1 :]]


def _would_admit(tier: Tier, limit: str, cost: int, spent: dict[int, int]) -> bool:
    its = tier.limits.get(limit)
    if its is None:
        return False
    return not its.enforce or all(
        spent.get(rate.window, 0) + cost <= rate.quota for rate in its.rates
    )
