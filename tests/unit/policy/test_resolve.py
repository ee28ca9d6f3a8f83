"""What applies to one tenant: its tier, with its overrides that have not ended."""

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.ledger.records import OverrideKind, OverrideRecord, OverrideValue
from partywall_service.policy.loader import parse_policy
from partywall_service.policy.model import Jobs, Limit, Quota, Rate
from partywall_service.policy.resolve import UnknownName, check_override, resolve

POLICY = parse_policy(
    """
    [tiers.free.limits]
    requests = { rate = "100/minute", enforce = false, on_outage = "closed" }
    [tiers.free.quotas]
    users = 5
    emails = { limit = 500, per = "month" }
    [tiers.free.jobs]
    concurrency = 2
    max_queued = 10
    rate = "5/second"
    [tiers.pro.limits]
    exports = "5/hour"
    [tiers.pro.quotas]
    storage = "1 GiB"
    """,
    "test",
)
FREE = POLICY.tiers["free"]
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
SOON = NOW + timedelta(hours=1)


def _override(
    kind: OverrideKind, name: str, value: OverrideValue, expires_at: datetime | None = None
) -> OverrideRecord:
    return OverrideRecord("acme", kind, name, value, expires_at, "a reason", "an author", NOW)


def test_without_overrides_the_tier_applies() -> None:
    effective = resolve(FREE, [], NOW)
    assert (effective.tier, effective.valid_until) == (FREE, None)
    assert effective.limits == FREE.limits
    assert effective.quotas == FREE.quotas
    assert effective.jobs == FREE.jobs


def test_an_override_beats_the_tier_and_keeps_the_rest_of_it() -> None:
    effective = resolve(
        FREE,
        [
            _override("limits", "requests", "500/minute;20/second"),
            _override("quotas", "users", 7),
            _override("quotas", "emails", 900),
            _override("quotas", "storage", "2 GiB"),
            _override("jobs", "concurrency", 9),
            _override("jobs", "rate", "7/minute"),
            _override("jobs", "queue", "dedicated"),
        ],
        NOW,
    )
    rates = (Rate(20, 1), Rate(500, 60))
    assert effective.limits["requests"] == Limit(
        "requests", rates, enforce=False, on_outage="closed"
    )
    assert effective.limits["exports"] == Limit("exports", ())
    assert effective.quotas["users"] == Quota("users", 7)
    assert effective.quotas["emails"] == Quota("emails", 900, "month")
    assert effective.quotas["storage"] == Quota("storage", 2 * 2**30)
    assert effective.jobs == Jobs(9, 10, (Rate(7, 60),), "dedicated")
    assert FREE.limits["requests"].rates == (Rate(100, 60),)  # the tier itself stays


@pytest.mark.parametrize("unlimited", ["unlimited", -1])
def test_an_override_may_lift_any_cap(unlimited: OverrideValue) -> None:
    effective = resolve(
        FREE,
        [
            _override("limits", "requests", unlimited),
            _override("quotas", "users", unlimited),
            _override("jobs", "concurrency", unlimited),
            _override("jobs", "max_queued", unlimited),
            _override("jobs", "rate", unlimited),
        ],
        NOW,
    )
    assert effective.limits["requests"].rates == ()
    assert effective.quotas["users"].limit is None
    assert effective.jobs == Jobs()


def test_an_override_ends_at_its_instant() -> None:
    override = _override("quotas", "users", 7, SOON)
    assert resolve(FREE, [override], SOON - timedelta(microseconds=1)).quotas["users"].limit == 7
    assert resolve(FREE, [override], SOON).quotas["users"].limit == 5
    assert resolve(FREE, [override], SOON).valid_until is None


def test_what_applies_is_valid_until_the_first_override_ends() -> None:
    overrides = [
        _override("quotas", "users", 7, SOON + timedelta(hours=1)),
        _override("quotas", "emails", 7, SOON),
        _override("jobs", "rate", "7/minute"),
        _override("limits", "requests", "7/minute", NOW - timedelta(hours=1)),
    ]
    assert resolve(FREE, overrides, NOW).valid_until == SOON.timestamp()


def test_instants_of_other_time_zones_are_the_same_instants() -> None:
    there = SOON.astimezone(timezone(timedelta(hours=5, minutes=30)))
    effective = resolve(FREE, [_override("quotas", "users", 7, there)], NOW)
    assert (effective.quotas["users"].limit, effective.valid_until) == (7, SOON.timestamp())


@pytest.mark.parametrize(
    "override",
    [
        _override("limits", "gone", "5/hour", SOON),
        _override("quotas", "gone", 5, SOON),
        _override("jobs", "gone", 5, SOON),
        _override("limits", "requests", "often", SOON),
        _override("quotas", "users", "many", SOON),
        _override("jobs", "concurrency", "1 GiB", SOON),
        _override("jobs", "queue", "big jobs", SOON),
    ],
    ids=lambda override: f"{override.kind}-{override.name}",
)
def test_what_the_policy_no_longer_knows_is_left_out(override: OverrideRecord) -> None:
    """The policy may have changed since the override was made and checked."""
    effective = resolve(FREE, [override, _override("quotas", "emails", 1)], NOW)
    assert (effective.limits, effective.jobs) == (FREE.limits, FREE.jobs)
    assert effective.quotas["users"] == FREE.quotas["users"]
    assert effective.quotas["emails"].limit == 1
    assert effective.valid_until is None


@pytest.mark.parametrize(
    ("kind", "name", "value"),
    [
        ("limits", "requests", "500/minute"),
        ("limits", "exports", "unlimited"),
        ("limits", "exports", -1),
        ("quotas", "users", 0),
        ("quotas", "storage", "10 GiB"),
        ("quotas", "emails", "unlimited"),
        ("jobs", "concurrency", 3),
        ("jobs", "max_queued", -1),
        ("jobs", "rate", "5/second;100/minute"),
        ("jobs", "queue", "dedicated"),
    ],
)
def test_an_override_that_can_apply_is_taken(
    kind: OverrideKind, name: str, value: OverrideValue
) -> None:
    check_override(POLICY, kind, name, value)


@pytest.mark.parametrize(("kind", "name"), [("limits", "users"), ("quotas", "requests")])
def test_a_name_that_no_tier_has_is_unknown(kind: OverrideKind, name: str) -> None:
    with pytest.raises(UnknownName) as caught:
        check_override(POLICY, kind, name, "unlimited")
    assert (caught.value.kind, caught.value.name) == (kind, name)
    assert str(caught.value) == f"no tier names '{name}' among its {kind}"


@pytest.mark.parametrize(
    ("kind", "name", "value", "expected"),
    [
        ("limits", "requests", 5, "expected a rate"),
        ("limits", "requests", "0/minute", "expected a quota from 1"),
        ("quotas", "users", -2, "expected a whole number from 0"),
        ("quotas", "users", "5", "expected a whole number from 0"),
        ("quotas", "storage", "1 gib", "expected one of the units"),
        ("jobs", "concurrency", "2 B", "expected a whole number from 0"),
        ("jobs", "rate", 5, "expected a rate"),
        ("jobs", "queue", "_system", "expected the name of a queue"),
        ("jobs", "weight", 5, "expected one of concurrency, max_queued, rate, queue; got 'weight'"),
    ],
)
def test_an_override_that_could_not_apply_is_refused(
    kind: OverrideKind, name: str, value: OverrideValue, expected: str
) -> None:
    with pytest.raises(ValueError, match=f"^{expected}"):
        check_override(POLICY, kind, name, value)


@given(
    kind=st.sampled_from(["limits", "quotas", "jobs"]),
    name=st.sampled_from(["requests", "users", "concurrency", "rate", "queue", "gone"]),
    value=st.integers()
    | st.text(max_size=20)
    | st.sampled_from(["5/hour", "unlimited", "1 GiB", "9/0 days"]),
)
def test_what_is_refused_would_have_changed_nothing(
    kind: OverrideKind, name: str, value: OverrideValue
) -> None:
    """`check_override` and `resolve` are of one opinion."""
    effective = resolve(FREE, [_override(kind, name, value, SOON)], NOW)
    try:
        check_override(POLICY, kind, name, value)
    except (UnknownName, ValueError):
        assert effective == resolve(FREE, [], NOW)
    else:
        assert effective.valid_until == SOON.timestamp()
