"""What an HTTP client is told of a decision: docs/contract.md section 5."""

import math
import re
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall.decision import (
    QUOTA_EXCEEDED,
    Decision,
    Window,
    denial_problem,
    rate_limit_headers,
    violated_policies,
)

IETF = {"RateLimit-Policy", "RateLimit"}
LEGACY = {"X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"}
LARGEST = 10**15 - 1
"""RFC 9651, section 3.3.1: an integer has at most fifteen digits."""


class Item(NamedTuple):
    text: str
    parameters: dict[str, int]


_ITEM = re.compile(
    r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"((?:; *[a-z*][a-z0-9_.*-]*=-?[0-9]{1,15})*)'
)
_PARAMETER = re.compile(r"; *([^=]+)=(-?[0-9]+)")


def parse_list(field: str) -> list[Item]:
    """Reads a list of strings with integer parameters, as RFC 9651 (section 4.2) has it.

    Only that part of the grammar, which is all that the rate-limit draft needs; anything else is
    refused, as a strict client refuses the whole field.
    """
    items = []
    place = 0
    while True:
        match = _ITEM.match(field, place)
        if match is None:
            raise ValueError(f"no string with integer parameters at {place} of {field!r}")
        parameters = _PARAMETER.findall(match[2])
        items.append(Item(match[1], {key: int(value) for key, value in parameters}))
        if match.end() == len(field):
            return items
        comma = re.compile(r"[ \t]*,[ \t]*(?!$)").match(field, match.end())
        if comma is None:
            raise ValueError(f"no comma and further item at {match.end()} of {field!r}")
        place = comma.end()


def decision(*windows: Window, **more: object) -> Decision:
    """One of tenant acme, tier pro, limit requests; allowed unless told otherwise."""
    fields: dict[str, object] = {
        "allowed": True,
        "tenant": "acme",
        "tier": "pro",
        "limit": "requests",
        "cost": 1,
        "windows": windows,
    }
    return Decision(**(fields | more))  # type: ignore[arg-type]


def denied(*windows: Window, **more: object) -> Decision:
    return decision(*windows, **({"allowed": False, "reason": "limit-exceeded"} | more))


A_MINUTE = Window(quota=1000, window=60, remaining=999, reset_after=60.0)
A_SECOND = Window(quota=10, window=1, remaining=9, reset_after=0.1)
FULL_SECOND = Window(quota=10, window=1, remaining=0, reset_after=0.93)


def test_an_allowed_decision_is_true_and_a_denied_one_false() -> None:
    assert decision(A_MINUTE)
    assert not denied(FULL_SECOND)


def test_both_families_come_by_default_as_the_contract_writes_them() -> None:
    assert rate_limit_headers(decision(A_MINUTE)) == {
        "RateLimit-Policy": '"requests";q=1000;w=60',
        "RateLimit": '"requests";r=999;t=60',
        "X-RateLimit-Limit": "1000",
        "X-RateLimit-Remaining": "999",
        "X-RateLimit-Reset": "60",
    }


@pytest.mark.parametrize(
    ("family", "names"),
    [("ietf", IETF), ("legacy", LEGACY), ("both", IETF | LEGACY), ("none", set())],
)
def test_a_family_brings_its_own_headers_and_no_others(family, names) -> None:
    assert set(rate_limit_headers(decision(A_MINUTE), family)) == names


@pytest.mark.parametrize("family", ["ietf", "legacy", "both", "none"])
def test_a_denial_says_when_to_retry_in_every_family(family) -> None:
    headers = rate_limit_headers(denied(FULL_SECOND, retry_after=0.4), family)
    assert headers["Retry-After"] == "1"


@pytest.mark.parametrize("windows", [(A_SECOND, A_MINUTE), (A_MINUTE, A_SECOND)])
def test_the_longest_window_bears_the_bare_name_and_others_their_length(windows) -> None:
    headers = rate_limit_headers(decision(*windows), "ietf")
    assert headers["RateLimit-Policy"] == '"requests";q=1000;w=60, "requests-1s";q=10;w=1'
    assert headers["RateLimit"] == '"requests";r=999;t=60, "requests-1s";r=9;t=1'


def test_three_windows_are_three_items_longest_first() -> None:
    an_hour = Window(quota=5000, window=3600, remaining=4000, reset_after=3599.5)
    headers = rate_limit_headers(decision(A_SECOND, A_MINUTE, an_hour), "ietf")
    names = ["requests", "requests-60s", "requests-1s"]
    assert [item.text for item in parse_list(headers["RateLimit-Policy"])] == names
    assert [item.text for item in parse_list(headers["RateLimit"])] == names


@pytest.mark.parametrize("rest", [9, 1])
def test_the_legacy_family_speaks_of_the_window_with_the_least_remaining(rest) -> None:
    a_minute = Window(quota=1000, window=60, remaining=rest, reset_after=59.5)
    a_second = Window(quota=10, window=1, remaining=5, reset_after=0.5)
    headers = rate_limit_headers(decision(a_second, a_minute), "legacy")
    told = ("10", "5", "1") if rest == 9 else ("1000", "1", "60")
    assert headers == dict(
        zip(("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset"), told, strict=True)
    )


@pytest.mark.parametrize("family", ["ietf", "legacy", "both", "none"])
def test_an_unlimited_decision_has_no_headers(family) -> None:
    assert rate_limit_headers(decision(), family) == {}


@pytest.mark.parametrize(
    ("seconds", "told"), [(0.001, "1"), (1.0, "1"), (1.000001, "2"), (59.2, "60"), (0.0, "0")]
)
def test_retry_after_is_whole_seconds_rounded_up(seconds, told) -> None:
    headers = rate_limit_headers(denied(FULL_SECOND, retry_after=seconds))
    assert headers["Retry-After"] == told


def test_what_never_fits_has_no_retry_after() -> None:
    headers = rate_limit_headers(denied(A_SECOND, cost=11, retry_after=None))
    assert "Retry-After" not in headers
    assert headers.keys() == IETF | LEGACY


def test_a_suspended_tenant_is_told_of_no_window_and_of_no_moment() -> None:
    assert rate_limit_headers(denied(reason="tenant-suspended", retry_after=None)) == {}


def test_an_allowed_decision_never_has_retry_after() -> None:
    assert "Retry-After" not in rate_limit_headers(decision(A_MINUTE, retry_after=0.0))


amounts = st.integers(0, LARGEST)
window_lists = st.lists(
    st.builds(
        Window,
        quota=st.integers(1, LARGEST),
        window=st.integers(1, 10 * 360 * 24 * 3600),
        remaining=amounts,
        reset_after=st.floats(0, 10 * 360 * 24 * 3600),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda window: window.window,
)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)


@given(window_lists, names)
def test_the_fields_are_structured_and_say_what_the_decision_says(windows, limit) -> None:
    headers = rate_limit_headers(decision(*windows, limit=limit), "ietf")
    policies = parse_list(headers["RateLimit-Policy"])
    states = parse_list(headers["RateLimit"])
    longest_first = sorted(windows, key=lambda window: window.window, reverse=True)
    assert [item.parameters for item in policies] == [
        {"q": window.quota, "w": window.window} for window in longest_first
    ]
    assert [item.parameters for item in states] == [
        {"r": window.remaining, "t": math.ceil(window.reset_after)} for window in longest_first
    ]
    assert [item.text for item in policies] == [item.text for item in states]
    assert policies[0].text == limit
    assert len({item.text for item in policies}) == len(windows)


def test_the_largest_quota_is_still_a_structured_field() -> None:
    most = 2**53 - 1
    headers = rate_limit_headers(decision(Window(most, 60, most - 1, 60.0)), "ietf")
    parse_list(headers["RateLimit-Policy"])
    parse_list(headers["RateLimit"])


@pytest.mark.parametrize(
    "field",
    [
        "",
        "requests;q=1",
        '"requests";q=1,',
        '"requests";q=1 "other";q=2',
        '"requests;q=1',
        '"requests";Q=1',
        '"requests";q=1000000000000000',
        '"requests";q="1"',
        '"réquests";q=1',
    ],
)
def test_the_parser_of_these_tests_is_strict(field) -> None:
    with pytest.raises(ValueError, match=r"^no "):
        parse_list(field)


def test_only_windows_without_room_for_the_cost_are_violated() -> None:
    assert violated_policies(denied(A_MINUTE, FULL_SECOND)) == ["requests-1s"]
    assert violated_policies(denied(A_MINUTE, A_SECOND, cost=9)) == []
    assert violated_policies(denied(A_MINUTE, A_SECOND, cost=10)) == ["requests-1s"]
    assert violated_policies(denied(A_MINUTE, A_SECOND, cost=1000)) == ["requests", "requests-1s"]


def test_violated_policies_are_names_that_the_headers_have() -> None:
    one = denied(A_MINUTE, FULL_SECOND)
    policies = parse_list(rate_limit_headers(one)["RateLimit-Policy"])
    assert set(violated_policies(one)) <= {item.text for item in policies}


def test_a_denial_is_a_problem_document() -> None:
    one = denied(A_MINUTE, FULL_SECOND, retry_after=0.4)
    assert denial_problem(one, upgrade="enterprise") == {
        "type": "https://iana.org/assignments/http-problem-types#quota-exceeded",
        "title": "Too many requests",
        "status": 429,
        "detail": "Limit 'requests' of tier 'pro' has no room now; try again in 1 s.",
        "violated-policies": ["requests-1s"],
        "tenant": "acme",
        "tier": "pro",
        "upgrade": "enterprise",
    }


def test_no_tier_to_upgrade_to_is_no_member_of_the_document() -> None:
    assert "upgrade" not in denial_problem(denied(FULL_SECOND, retry_after=0.4))


def test_a_cost_that_never_fits_is_told_so() -> None:
    document = denial_problem(denied(A_SECOND, cost=11, retry_after=None))
    assert document["detail"] == "Limit 'requests' of tier 'pro' never admits a cost of 11."
    assert document["type"] == QUOTA_EXCEEDED
    assert document["violated-policies"] == ["requests"]
