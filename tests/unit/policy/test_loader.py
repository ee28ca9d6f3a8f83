"""What a good quotas.toml means."""

import dataclasses
import hashlib
from pathlib import Path

import pytest

from partywall_service.policy.loader import load_policy, parse_policy
from partywall_service.policy.model import Jobs, Limit, Policy, Quota, Rate, Resource

GOOD = Path(__file__).parent / "corpus" / "good"


@pytest.fixture(scope="module")
def contract() -> Policy:
    return load_policy(GOOD / "contract.toml")


@pytest.fixture(scope="module")
def spellings() -> Policy:
    return load_policy(GOOD / "every-spelling.toml")


def test_the_contracts_sample_means_what_it_says(contract: Policy) -> None:
    free = contract.tiers["free"]
    assert contract.default_tier == "free"
    assert list(contract.tiers) == ["free", "pro"]
    assert (free.weight, free.features) == (1, ())
    assert free.limits == {
        "requests": Limit("requests", (Rate(10, 1), Rate(100, 60))),
        "exports": Limit("exports", (Rate(5, 3600),)),
    }
    assert free.quotas == {
        "users": Quota("users", 5),
        "projects": Quota("projects", 3),
        "api_keys": Quota("api_keys", 2),
        "storage": Quota("storage", 2**30),
        "cache_keys": Quota("cache_keys", 100),
        "emails": Quota("emails", 500, "month"),
    }
    assert free.jobs == Jobs(concurrency=2, max_queued=1000, rates=(Rate(100, 60),))
    assert contract.resources["cache_keys"] == Resource("cache_keys", durable=False)
    assert contract.resources["storage"] == Resource("storage", unit="bytes")
    assert contract.resources["users"] == Resource("users", durable=True, unit="count")


def test_a_tier_changes_only_what_differs(contract: Policy) -> None:
    free, pro = contract.tiers["free"], contract.tiers["pro"]
    assert (pro.weight, pro.features) == (4, ("advanced-analytics",))
    assert (pro.limits, pro.quotas, pro.jobs) == (free.limits, free.quotas, free.jobs)


def test_a_chain_is_followed_wherever_its_tiers_stand() -> None:
    tiers = load_policy(GOOD / "base-after-heir.toml").tiers
    assert tiers["gold"].weight == 3.5
    assert tiers["silver"].weight == 2
    assert tiers["gold"].features == ()  # silver's empty list is a change, too
    assert tiers["bronze"].features == ("sso",)
    assert tiers["gold"].limits["exports"].rates == (Rate(5, 3600),)
    assert tiers["gold"].jobs == Jobs(concurrency=2)
    # A limit is replaced whole: silver's plain rate is enforced again.
    assert tiers["gold"].limits["requests"] == Limit("requests", (Rate(20, 60),))
    assert tiers["bronze"].limits["requests"].enforce is False


def test_jobs_settings_are_inherited_one_by_one() -> None:
    text = (
        "[tiers.a.jobs]\nconcurrency = 2\nmax_queued = 9\nrate = '5/hour'\n"
        "queue = 'dedicated'\n"
        "[tiers.b]\nextends = 'a'\n[tiers.b.jobs]\nmax_queued = 'unlimited'\nrate = -1\n"
        "[tiers.c]\nextends = 'b'\n[tiers.c.jobs]\nqueue = 'default'\n"
    )
    tiers = parse_policy(text, "test").tiers
    assert tiers["b"].jobs == Jobs(concurrency=2, queue="dedicated")
    assert tiers["c"].jobs == Jobs(concurrency=2, queue="default")


@pytest.mark.parametrize(
    ("name", "rates"),
    [
        ("one", [(10, 1)]),
        ("per", [(10, 1)]),
        ("multiple", [(7, 180)]),
        ("many", [(10, 1), (100, 60), (5000, 86_400), (7, 30 * 86_400)]),
        ("listed", [(10, 1), (100, 60), (1000, 3600)]),
        ("lifted", []),
        ("lifted-too", []),
        ("table", [(10, 1)]),
        ("table-lifted", []),
        ("dotted.name", [(1, 360 * 86_400)]),
        ("largest", [(2**53 - 1, 1)]),
        ("longest", [(1, 3600 * 86_400)]),
        ("9", [(9, 3600)]),
    ],
)
def test_rates_may_be_written_in_many_ways(
    spellings: Policy, name: str, rates: list[tuple[int, int]]
) -> None:
    assert spellings.tiers["a"].limits[name].rates == tuple(Rate(*rate) for rate in rates)


def test_a_limits_table_says_how_it_acts(spellings: Policy) -> None:
    limits = spellings.tiers["a"].limits
    assert limits["one"] == Limit("one", (Rate(10, 1),), enforce=True, on_outage="local")
    assert limits["table"] == Limit("table", (Rate(10, 1),), enforce=False, on_outage="closed")
    assert limits["table-lifted"].on_outage == "open"


@pytest.mark.parametrize(
    ("name", "limit", "per", "unit"),
    [
        ("none", 0, None, "count"),
        ("few", 5, None, "count"),
        ("largest", 2**53 - 1, None, "count"),
        ("lifted", None, None, "count"),
        ("lifted-too", None, None, "count"),
        ("bytes", 1500, None, "bytes"),
        ("thousands", 1500, None, "bytes"),
        ("millions", 2_000_000, None, "bytes"),
        ("billions", 2 * 10**9, None, "bytes"),
        ("trillions", 2 * 10**12, None, "bytes"),
        ("kibi", 2**10, None, "bytes"),
        ("mebi", 2**20, None, "bytes"),
        ("gibi", 3 * 2**29, None, "bytes"),
        ("tebi", 2**40, None, "bytes"),
        ("daily", 10, "day", "count"),
        ("weekly", 2**20, "week", "bytes"),
        ("monthly", None, "month", "count"),
        ("held", 3, None, "count"),
    ],
)
def test_quotas_may_be_written_in_many_ways(
    spellings: Policy, name: str, limit: int | None, per: str | None, unit: str
) -> None:
    quota = spellings.tiers["a"].quotas[name]
    assert (quota.limit, quota.per, spellings.resources[name].unit) == (limit, per, unit)


def test_one_size_makes_a_resource_bytes_in_every_tier() -> None:
    text = (
        "[tiers.a.quotas]\nstorage = 500\n"
        "[tiers.b.quotas]\nstorage = '1 KiB'\n"
        "[tiers.c.quotas]\nstorage = -1\n"
    )
    policy = parse_policy(text, "test")
    assert policy.resources["storage"].unit == "bytes"
    assert [tier.quotas["storage"].limit for tier in policy.tiers.values()] == [500, 1024, None]


def test_what_another_tier_names_is_unlimited_here() -> None:
    text = (
        "[tiers.a.limits]\nrequests = '5/hour'\n"
        "[tiers.b.quotas]\nusers = 5\n"
        "[tiers.c.jobs]\nrate = '5/hour'\n"
    )
    tiers = parse_policy(text, "test").tiers
    assert tiers["b"].limits == {"requests": Limit("requests", ())}
    assert tiers["a"].quotas == {"users": Quota("users", None)}
    assert tiers["a"].jobs == Jobs(None, None, ())


def test_a_quota_without_a_period_is_counted_by_that_of_the_other_tiers() -> None:
    text = """
        [tiers.free.quotas]
        emails = { limit = 500, per = "month" }
        calls = { limit = 5, per = "day" }
        users = 5
        [tiers.pro.quotas]
        emails = 5000
        calls = { limit = 50, per = "week" }
        users = 50
        [tiers.enterprise.quotas]
        emails = "unlimited"
        calls = "unlimited"
        [tiers.other]
    """
    tiers = parse_policy(text, "test").tiers
    assert [tier.quotas["emails"].per for tier in tiers.values()] == ["month"] * 4
    assert [tier.quotas["emails"].limit for tier in tiers.values()] == [500, 5000, None, None]
    # Where they do not agree there is none to take.
    assert [tier.quotas["calls"].per for tier in tiers.values()] == ["day", "week", None, None]
    assert {tier.quotas["users"].per for tier in tiers.values()} == {None}


@pytest.mark.parametrize(
    ("written", "thresholds"),
    [
        ("", (80, 95, 100)),
        ("thresholds = []", ()),
        ("thresholds = [50, 90]", (50, 90)),
        ("thresholds = [1, 1000]", (1, 1000)),
    ],
)
def test_thresholds_are_each_resources_own(written: str, thresholds: tuple[int, ...]) -> None:
    text = f"[tiers.a.quotas]\nusers = 5\nseats = 9\n[resources.users]\n{written}\n"
    resources = parse_policy(text, "test").resources
    assert resources["users"].thresholds == thresholds
    assert resources["seats"].thresholds == (80, 95, 100)


def test_without_a_default_tier_there_is_none() -> None:
    assert load_policy(GOOD / "smallest.toml").default_tier is None


def test_a_byte_order_mark_is_no_part_of_the_text() -> None:
    assert load_policy(GOOD / "windows-editor.toml").tiers["free"].weight == 2


def test_the_digest_is_of_the_text() -> None:
    text = "[tiers.free] # größer\n"
    assert parse_policy(text, "a").digest == hashlib.sha256(text.encode()).hexdigest()
    assert parse_policy(text, "b").digest == parse_policy(text, "a").digest
    assert parse_policy(text + "\n", "a").digest != parse_policy(text, "a").digest


def test_nothing_in_a_policy_can_be_changed(contract: Policy) -> None:
    free = contract.tiers["free"]
    for mapping in (contract.tiers, contract.resources, free.limits, free.quotas):
        with pytest.raises(TypeError):
            mapping["new"] = None
    for record in (contract, free, free.limits["requests"], free.quotas["users"], free.jobs):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(record, dataclasses.fields(record)[0].name, "new")
