"""What a sidecar remembers of tenants, and when it asks again."""

import asyncio
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType

import pytest

from partywall_service import directory as module
from partywall_service.directory import Directory
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.records import OverrideRecord, TenantRecord
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import Limit, Policy, Rate, Tier

THEN = datetime(2026, 1, 1, tzinfo=UTC)


def policy(default: str | None = "free", **quotas: int) -> Policy:
    tiers = {
        name: Tier(name, limits={"requests": Limit("requests", (Rate(quota, 60),))})
        for name, quota in (quotas or {"free": 100, "pro": 1000}).items()
    }
    return Policy(MappingProxyType(tiers), default, MappingProxyType({}), digest="")


def record(tenant: str, tier: str = "pro") -> TenantRecord:
    return TenantRecord(tenant, tenant, tier, "active", (), THEN, THEN)


def override(tenant: str, value: str, expires: float | None = None) -> OverrideRecord:
    end = None if expires is None else datetime.fromtimestamp(expires, UTC)
    return OverrideRecord(tenant, "limits", "requests", value, end, "a test", "me", THEN)


class Ledger:
    """A ledger whose answers a test holds back, changes or refuses."""

    def __init__(self, *tenants: TenantRecord) -> None:
        self.tenants = {one.tenant: one for one in tenants}
        self.overrides: dict[str, tuple[OverrideRecord, ...]] = {}
        self.queries: list[list[str]] = []
        self.asked = asyncio.Event()
        self.gate: asyncio.Event | None = None
        self.down = False

    async def load_many(
        self, tenants: Sequence[str]
    ) -> Mapping[str, tuple[TenantRecord, tuple[OverrideRecord, ...]]]:
        self.queries.append(list(tenants))
        self.asked.set()
        if self.down:
            raise LedgerUnavailable("down")
        answer = {
            tenant: (self.tenants[tenant], self.overrides.get(tenant, ()))
            for tenant in tenants
            if tenant in self.tenants
        }
        if self.gate is not None:
            await self.gate.wait()
        return answer


def quota(entry: module.Entry) -> int:
    assert entry.standing is not None
    return entry.standing.limits["requests"].rates[0].quota


async def find(directory: Directory, tenant: str) -> module.Entry:
    return (await directory.find([tenant]))[tenant]


async def test_a_tenant_is_read_once_and_then_remembered():
    ledger = Ledger(record("acme"))
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    assert directory.get("acme") is None
    assert quota(await find(directory, "acme")) == 1000
    found = directory.get("acme")
    assert found is not None
    assert quota(found) == 1000
    assert ledger.queries == [["acme"]]


async def test_cold_tenants_share_queries_and_one_tenant_is_asked_for_once():
    ledger = Ledger()
    directory = Directory(ledger, PolicyHolder(policy()), size=10_000)
    await asyncio.gather(*(directory.find([f"t{n % 600}"]) for n in range(1800)))
    assert [len(query) for query in ledger.queries] == [module.MAX_LOAD, 100]


async def test_a_tenant_nobody_registered_gets_the_default_tier_or_is_unknown():
    with_default = Directory(Ledger(), PolicyHolder(policy()), size=10)
    assert quota(await find(with_default, "nobody")) == 100
    without = Directory(Ledger(), PolicyHolder(policy(default=None)), size=10)
    assert (await find(without, "nobody")).standing is None


async def test_a_change_is_read_at_the_next_use():
    ledger = Ledger(record("acme", "free"))
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    await find(directory, "acme")
    ledger.tenants["acme"] = record("acme", "pro")
    directory.forget("acme")
    assert directory.get("acme") is None
    assert quota(await find(directory, "acme")) == 1000


async def test_a_change_during_a_load_is_not_remembered_as_it_was_before():
    ledger = Ledger(record("acme", "free"))
    ledger.gate = asyncio.Event()
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    early = asyncio.create_task(find(directory, "acme"))
    await ledger.asked.wait()
    ledger.tenants["acme"] = record("acme", "pro")
    directory.forget("acme")
    late = asyncio.create_task(find(directory, "acme"))
    ledger.gate.set()
    await early
    assert quota(await late) == 1000
    remembered = directory.get("acme")
    assert remembered is not None
    assert quota(remembered) == 1000


async def test_missed_notices_make_everything_be_read_again():
    ledger = Ledger(record("acme"), record("beta"))
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    await directory.find(["acme", "beta"])
    directory.forget_all()
    assert directory.get("acme") is None
    await directory.find(["acme", "beta"])
    assert len(ledger.queries) == 2


async def test_known_tenants_go_on_while_postgresql_is_away():
    ledger = Ledger(record("acme"))
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    await find(directory, "acme")
    ledger.down = True
    directory.forget_all()
    assert quota(await find(directory, "acme")) == 1000
    with pytest.raises(LedgerUnavailable):
        await find(directory, "stranger")
    assert len(ledger.queries) == 2, "an outage is not asked about with every check"


async def test_a_load_that_does_not_end_counts_as_failed(monkeypatch):
    monkeypatch.setattr(module, "LOAD_DEADLINE", 0.01)
    ledger = Ledger()
    ledger.gate = asyncio.Event()
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    with pytest.raises(LedgerUnavailable):
        await find(directory, "acme")


async def test_a_defect_in_a_load_reaches_each_caller_and_the_next_load_works():
    ledger = Ledger(record("acme"))
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    load_many, ledger.load_many = ledger.load_many, None  # type: ignore[method-assign] # a defect
    answers = await asyncio.gather(
        *(find(directory, "acme") for _ in range(3)), return_exceptions=True
    )
    assert [type(answer) for answer in answers] == [TypeError] * 3
    ledger.load_many = load_many  # type: ignore[method-assign] # and its end
    assert quota(await find(directory, "acme")) == 1000


async def test_a_tenant_that_changes_before_its_load_begins_is_read_for_all_who_asked():
    ledger = Ledger(record("acme"), record("beta", "free"))
    ledger.gate = asyncio.Event()
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    under_way = asyncio.create_task(find(directory, "acme"))
    await ledger.asked.wait()
    before = asyncio.create_task(find(directory, "beta"))
    await asyncio.sleep(0)
    directory.forget("beta")
    ledger.tenants["beta"] = record("beta", "pro")
    after = asyncio.create_task(find(directory, "beta"))
    ledger.gate.set()
    async with asyncio.timeout(10):
        assert [quota(await one) for one in (under_way, before, after)] == [1000] * 3
    assert directory.get("beta") is not None, "it is remembered"


async def test_a_caller_that_goes_does_not_take_the_load_with_it():
    ledger = Ledger(record("acme"))
    ledger.gate = asyncio.Event()
    directory = Directory(ledger, PolicyHolder(policy()), size=10)
    leaver, stayer = (asyncio.create_task(find(directory, "acme")) for _ in range(2))
    await ledger.asked.wait()
    leaver.cancel()
    ledger.gate.set()
    assert quota(await stayer) == 1000


async def test_memory_is_bounded():
    directory = Directory(Ledger(), PolicyHolder(policy()), size=100)
    await directory.find([f"t{number}" for number in range(450)])
    assert len(directory) == 100


async def test_a_new_policy_applies_at_once_without_a_query():
    ledger = Ledger(record("acme"))
    holder = PolicyHolder(policy())
    directory = Directory(ledger, holder, size=10)
    await find(directory, "acme")
    holder.current = policy(free=1, pro=7)
    entry = directory.get("acme")
    assert entry is not None
    assert quota(entry) == 7
    assert len(ledger.queries) == 1


async def test_an_override_beats_the_tier_and_ends_by_itself():
    now = [1_800_000_000.0]
    ledger = Ledger(record("acme"))
    ledger.overrides["acme"] = (override("acme", "5/minute", expires=now[0] + 10),)
    directory = Directory(ledger, PolicyHolder(policy()), size=10, clock=lambda: now[0])
    assert quota(await find(directory, "acme")) == 5
    now[0] += 10
    entry = directory.get("acme")
    assert entry is not None
    assert quota(entry) == 1000


async def test_a_tenant_whose_tier_is_gone_gets_the_default_tier():
    directory = Directory(Ledger(record("acme", "gold")), PolicyHolder(policy()), size=10)
    assert quota(await find(directory, "acme")) == 100
