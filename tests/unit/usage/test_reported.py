"""What SDK processes report is checked whole before any of it counts."""

from datetime import UTC, datetime

import pytest
from structlog.testing import capture_logs

from partywall.protocol import TenantUsage, UsageReport
from partywall_service.directory import Directory
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.records import TenantRecord
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Policy, Tier
from partywall_service.usage.reported import MOST, OLDEST, InvalidReport, Reported

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ADMITTED = "limits.requests.admitted"


class Tenants:
    """`acme` and `gone`, which is suspended; nobody else."""

    away = False

    async def load_many(self, tenants):
        if self.away:
            raise LedgerUnavailable("away")
        known = {"acme": "active", "gone": "suspended"}
        return {
            tenant: (TenantRecord(tenant, tenant, "free", known[tenant], (), NOW, NOW), ())
            for tenant in tenants
            if tenant in known
        }


class Added:
    """Keeps what it is given."""

    def __init__(self) -> None:
        self.reports = []

    async def add(self, report):
        self.reports.append(report)
        return len(report.usage)


def reported(added: Added, *, default: str | None = None, tenants: Tenants | None = None):
    policy = PolicyHolder(Policy({"free": Tier("free")}, default, {}, "0" * 64))
    return Reported(Directory(tenants or Tenants(), policy, size=100), added)


def report(*usage: tuple[str, dict[str, int]], instance: str = "one", age: float = 0.5):
    return UsageReport(instance, 7, age, [TenantUsage(*one) for one in usage])


@pytest.fixture
def added() -> Added:
    return Added()


async def test_it_is_added_as_it_came(added):
    one = report(("acme", {ADMITTED: 2, "requests.in_flight_seconds": 31}))
    assert await reported(added).apply(one) == 1
    assert added.reports == [one]


async def test_tenants_that_nobody_knows_are_left_out(added):
    service = reported(added)
    counts = {ADMITTED: 1}
    several = report(("ghost", counts), ("acme", counts), ("gone", counts), ("acme", counts))
    assert await service.apply(several) == 3
    assert [one.tenant for one in added.reports[0].usage] == ["acme", "gone", "acme"]
    assert await service.apply(report(("ghost", counts))) == 0
    assert await service.apply(report()) == 0
    assert len(added.reports) == 1


async def test_with_a_default_tier_everybody_is_known(added):
    assert await reported(added, default="free").apply(report(("ghost", {ADMITTED: 1}))) == 1


async def test_who_cannot_be_looked_up_leaves_the_whole_for_another_time(added):
    tenants = Tenants()
    service = reported(added, tenants=tenants)
    await service.apply(report(("acme", {ADMITTED: 1})))
    tenants.away = True
    with pytest.raises(LedgerUnavailable):
        await service.apply(report(("acme", {ADMITTED: 1}), ("new", {ADMITTED: 1})))
    assert len(added.reports) == 1
    assert await service.apply(report(("acme", {ADMITTED: 1}))) == 1


async def test_what_is_older_than_anybody_remembers_is_dropped_and_told(added):
    service = reported(added)
    with capture_logs() as logs:
        assert await service.apply(report(("acme", {ADMITTED: 1}), age=OLDEST + 1)) == 0
    assert [line["event"] for line in logs] == ["usage.too_old"]
    assert await service.apply(report(("acme", {ADMITTED: 1}), age=OLDEST)) == 1


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        (("acme", {"limits.requests.allowed": 1}), "usage[1].meters"),
        (("acme", {"limits..admitted": 1}), "usage[1].meters"),
        (("acme", {"requests.6xx": 1}), "usage[1].meters"),
        (("acme", {"quotas.users.used": 1}), "usage[1].meters"),
        (("acme", {"jobs.run_seconds": 1}), "usage[1].meters"),
        (("acme", {f"{ADMITTED}\n": 1}), "usage[1].meters"),
        (("acme", {ADMITTED: MOST + 1}), f"usage[1].meters.{ADMITTED}"),
        (("a b", {ADMITTED: 1}), "usage[1].tenant"),
        (("acme\n", {ADMITTED: 1}), "usage[1].tenant"),
    ],
)
async def test_a_fault_is_named_and_nothing_is_added(added, wrong, field):
    with pytest.raises(InvalidReport) as caught:
        await reported(added).apply(report(("acme", {ADMITTED: 1}), wrong))
    assert caught.value.field == field
    assert added.reports == []


async def test_an_instance_ends_with_no_line_end(added):
    with pytest.raises(InvalidReport) as caught:
        await reported(added).apply(report(("acme", {ADMITTED: 1}), instance="one\n"))
    assert caught.value.field == "instance"
