"""Which tier would have admitted what this one denied."""

from partywall.decision import Decision
from partywall_service.policy.model import Policy, Tier


def upgrade(policy: Policy, decision: Decision) -> str | None:
    """The first tier after the decision's own, in the file's order, that would have admitted it.

    None when there is none, or when the tenant's tier is unknown to the policy.
    """
    names = list(policy.tiers)
    if decision.tier is None or decision.tier not in policy.tiers:
        return None
    further = names[names.index(decision.tier) + 1 :]
    return next((name for name in further if _would_admit(policy.tiers[name], decision)), None)


def _would_admit(tier: Tier, decision: Decision) -> bool:
    limit = tier.limits.get(decision.limit)
    if limit is None:
        return False
    spent = {window.window: window.quota - window.remaining for window in decision.windows}
    return not limit.enforce or all(
        spent.get(rate.window, 0) + decision.cost <= rate.quota for rate in limit.rates
    )
