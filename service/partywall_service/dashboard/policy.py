"""The policy: tiers side by side, and what was refused."""

from collections.abc import Callable, Mapping

from fastapi import APIRouter, Request, Response

from partywall_service.api.deps import Host, PartsDep
from partywall_service.dashboard import formats
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.pages import page
from partywall_service.dashboard.routing import PageRoute
from partywall_service.policy.model import Jobs, Policy, Quota, Tier

router = APIRouter(prefix=HOME, route_class=PageRoute)

_JOBS: Mapping[str, Callable[[Jobs], str]] = {
    "running at once": lambda jobs: formats.number(jobs.concurrency),
    "waiting": lambda jobs: formats.number(jobs.max_queued),
    "starts": lambda jobs: formats.rates(jobs.rates),
    "queue": lambda jobs: jobs.queue or "the common one",
}


@router.get("/policy")
async def show_policy(request: Request, parts: PartsDep, _: Host) -> Response:
    """What quotas.toml says, as it is in force."""
    holder = parts.policy
    policy = holder.current
    shown = {
        "taken_at": holder.taken_at,
        "refused": holder.refused,
        "default_tier": policy.default_tier,
        "digest": policy.digest,
        "tiers": list(policy.tiers.values()),
        "limits": sorted(policy.limit_names),
        "quotas": list(policy.resources),
        "jobs": list(_JOBS),
        "resources": list(policy.resources.values()),
        "limit_cell": _limit,
        "quota_cell": lambda tier, name: _quota(policy, tier, name),
        "job_cell": lambda tier, name: _JOBS[name](tier.jobs),
    }
    return page(request, "policy", shown)


def _limit(tier: Tier, name: str) -> str:
    limit = tier.limits.get(name)
    if limit is None:
        return "unlimited"
    said = formats.rates(limit.rates)
    if not limit.enforce:
        said += "; observed only"
    if limit.on_outage != "local":
        said += f"; {limit.on_outage} in an outage"
    return said


def _quota(policy: Policy, tier: Tier, name: str) -> str:
    quota = tier.quotas.get(name, Quota(name, None))
    said = formats.amount(quota.limit, policy.resources[name].unit)
    return said if quota.per is None else f"{said} a {quota.per}"
