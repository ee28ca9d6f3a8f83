"""What applies to a tenant → what its jobs may take. Pure."""

from collections.abc import Mapping
from types import MappingProxyType

from partywall_service.directory import Standing
from partywall_workers.policy import (
    CRON_TENANT,
    DEFAULT_LANE,
    SYSTEM_POLICY,
    SYSTEM_TENANT,
    JobPolicy,
)

UNKNOWN = JobPolicy(held="unknown")
"""Of a tenant that nobody registered, where no tier is for such tenants."""

FIXED: Mapping[str, JobPolicy] = MappingProxyType(
    {SYSTEM_TENANT: SYSTEM_POLICY, CRON_TENANT: JobPolicy(tier=CRON_TENANT)}
)
"""Of those that are nobody's customer; the ledger has no say in them."""


def job_policy(standing: Standing | None) -> JobPolicy:
    """What the jobs of a tenant of this standing may take; None is a tenant refused as unknown."""
    if standing is None:
        return UNKNOWN
    tier, jobs = standing.tier, standing.jobs
    return JobPolicy(
        tier=tier.name,
        features=tier.features,
        weight=tier.weight,
        concurrency=jobs.concurrency,
        max_queued=jobs.max_queued,
        rates=tuple((rate.quota, rate.window) for rate in jobs.rates),
        lane=jobs.queue or DEFAULT_LANE,
        held=None if standing.status == "active" else standing.status,
    )
