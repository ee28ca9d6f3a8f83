"""From what applies to a tenant to what its jobs may take."""

import pytest

from partywall_service.directory import Directory
from partywall_service.jobs.policies import FIXED, UNKNOWN, job_policy
from partywall_service.ledger.records import Status
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.loader import parse_policy
from partywall_workers.policy import JobPolicy
from tests.unit.test_directory import THEN, Ledger, TenantRecord, find

TOML = """
[tiers.free]
[tiers.pro]
weight = 2.5
features = ["sso", "audit"]
[tiers.pro.jobs]
concurrency = 8
max_queued = 0
rate = ["5/second", "100/minute"]
queue = "dedicated"
"""


async def policy_of(tier: str, status: Status = "active", toml: str = TOML) -> JobPolicy:
    ledger = Ledger(TenantRecord("acme", "Acme", tier, status, (), THEN, THEN))
    directory = Directory(ledger, PolicyHolder(parse_policy(toml, "test")), size=10)
    return job_policy((await find(directory, "acme")).standing)


async def test_a_tier_says_it_all() -> None:
    assert await policy_of("pro") == JobPolicy(
        tier="pro",
        features=("sso", "audit"),
        weight=2.5,
        concurrency=8,
        max_queued=0,
        rates=((5, 1), (100, 60)),
        lane="dedicated",
        held=None,
    )


async def test_what_a_tier_leaves_out_is_not_capped() -> None:
    assert await policy_of("free") == JobPolicy(tier="free")


@pytest.mark.parametrize("status", ["suspended", "provisioning"])
async def test_only_jobs_of_active_tenants_start(status: Status) -> None:
    assert await policy_of("free", status) == JobPolicy(tier="free", held=status)


async def test_a_tenant_refused_as_unknown_is_held() -> None:
    assert await policy_of("a tier that is gone") == UNKNOWN == JobPolicy(held="unknown")
    assert await policy_of("gone", toml=f"default_tier = 'free'\n{TOML}") == JobPolicy(tier="free")


def test_what_is_nobodys_is_never_held() -> None:
    assert set(FIXED) == {"_system", "_cron"}
    assert all(policy.held is None and policy.concurrency is None for policy in FIXED.values())
