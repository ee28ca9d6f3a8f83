"""Headers as strict clients read them: RFC 9651 by a parser that is not ours, and the draft's.

Source: draft-ietf-httpapi-ratelimit-headers-11.
"""

import math
from typing import Any, get_args

import http_sf
from hypothesis import given
from hypothesis import strategies as st

from partywall.account import Lent, Spent
from partywall.context import Tenant
from partywall.decision import Decision, HeaderFamily, Window, rate_limit_headers
from partywall.governed import SCOPE_KEY
from partywall.protocol import LIMIT_PATTERN, MAX_AMOUNT, Permit
from partywall.responses import raw
from partywall.usage import Tally
from tests.unit.sdk.asgi import FULL_MINUTE, MINUTE, SECOND, Sidecar, answering, denied, request

MOST = 10**15 - 1
"""RFC 9651, section 3.3.1: the largest integer."""

names = st.from_regex(LIMIT_PATTERN, fullmatch=True)
seconds = st.floats(0, 400 * 86400)


@st.composite
def windows(draw: st.DrawFn) -> Window:
    quota = draw(st.integers(1, MAX_AMOUNT))
    length = draw(st.integers(1, 400 * 86400))
    return Window(quota, length, draw(st.integers(0, quota)), draw(seconds))


@st.composite
def decisions(draw: st.DrawFn, name: str) -> Decision:
    some = draw(st.lists(windows(), max_size=4, unique_by=lambda one: one.window))
    allowed = draw(st.booleans())
    return Decision(
        allowed,
        "acme",
        "free",
        name,
        1,
        None if allowed else "limit-exceeded",
        retry_after=0.0 if allowed else draw(st.none() | seconds),
        windows=tuple(some),
    )


@st.composite
def of_several_limits(draw: st.DrawFn) -> list[Decision]:
    limits = draw(st.lists(names, min_size=1, max_size=4, unique=True))
    return [draw(decisions(name)) for name in limits]


def parsed(value: str, name: str) -> list[tuple[str, dict[str, int]]]:
    """A list of strings with parameters, by the RFC alone."""
    items: Any = http_sf.parse(value.encode(), name=name, tltype="list")
    return [(item, dict(parameters)) for item, parameters in items]


@given(of_several_limits())
def test_both_fields_parse_and_say_what_was_decided(decided):
    headers = rate_limit_headers(decided[0], "ietf", *decided[1:])
    expected = [(one, window) for one in decided for window in longest_first(one)]
    if not expected:
        assert not headers.keys() & {"RateLimit", "RateLimit-Policy"}
        return
    policies = parsed(headers["RateLimit-Policy"], "RateLimit-Policy")
    limits = parsed(headers["RateLimit"], "RateLimit")
    assert [parameters for _, parameters in policies] == [
        {"q": min(window.quota, MOST), "w": window.window} for _, window in expected
    ]
    assert [parameters for _, parameters in limits] == [
        {"r": min(window.remaining, MOST), "t": math.ceil(window.reset_after)}
        for _, window in expected
    ]
    # Each `RateLimit` item is of the policy of its name, and within it.
    assert [name for name, _ in limits] == [name for name, _ in policies]
    for (_, policy), (_, limit) in zip(policies, limits, strict=True):
        assert 0 <= limit["r"] <= policy["q"]
        assert limit["t"] >= 0


@given(of_several_limits())
def test_a_limits_longest_window_bears_its_name_and_no_limit_two_of_one_name(decided):
    headers = rate_limit_headers(decided[0], "ietf", *decided[1:])
    for one in decided:
        if one.windows:
            policies = parsed(headers["RateLimit-Policy"], "RateLimit-Policy")
            longest = max(window.window for window in one.windows)
            assert [own["w"] for name, own in policies if name == one.limit][:1] == [longest]
            mine = longest_first(one)
            assert len({own.window for own in mine}) == len(mine)


@given(of_several_limits())
def test_the_legacy_family_is_of_the_window_with_the_least_left(decided):
    headers = rate_limit_headers(decided[0], "legacy", *decided[1:])
    every = [window for one in decided for window in one.windows]
    if every:
        assert int(headers["X-RateLimit-Remaining"]) == min(one.remaining for one in every)
        assert (int(headers["X-RateLimit-Limit"]), int(headers["X-RateLimit-Reset"])) in {
            (one.quota, math.ceil(one.reset_after)) for one in every
        }


@given(decisions("requests"))
def test_retry_after_is_whole_seconds_and_enough(decided):
    said = rate_limit_headers(decided, "none").get("Retry-After")
    if decided.allowed or decided.retry_after is None:
        assert said is None
    else:
        assert said is not None
        assert said.isdigit()
        assert int(said) == math.ceil(decided.retry_after)


@given(
    names,
    st.lists(windows(), max_size=4, unique_by=lambda one: one.window),
    st.integers(0, MAX_AMOUNT),
    seconds,
    st.sampled_from(get_args(HeaderFamily)),
)
def test_what_a_lease_says_in_bytes_is_what_its_decision_says(name, some, units, passed, family):
    lent = Lent(Tenant("acme", "free"), name, tuple(some), told_at=100.0)
    spent = Spent(lent.tenant, False, Tally("acme", name), lent, 1, units, 100.0 + passed)
    other = next(one for one in get_args(HeaderFamily) if one != family)
    spent.headers(other)  # of another middleware that shares the client
    assert spent.headers(family) == raw(rate_limit_headers(spent.decision, family))


async def test_several_limits_of_one_request_are_items_of_one_field():
    exports = Decision(True, "acme", "free", "exports", 5, windows=(FULL_MINUTE, SECOND))
    app = answering(lambda scope: scope[SCOPE_KEY].add(exports))
    answer = await request(Sidecar().governing(app))
    assert parsed(answer["ratelimit-policy"], "RateLimit-Policy") == [
        ("requests", {"q": 100, "w": 60}),
        ("exports", {"q": 100, "w": 60}),
        ("exports-1s", {"q": 10, "w": 1}),
    ]
    assert parsed(answer["ratelimit"], "RateLimit") == [
        ("requests", {"r": 99, "t": 60}),
        ("exports", {"r": 0, "t": 60}),
        ("exports-1s", {"r": 9, "t": 1}),
    ]
    assert answer["x-ratelimit-remaining"] == "0"


async def test_an_unlimited_tenant_is_told_of_no_limit():
    app = Sidecar(lambda ask: Permit(True, "enterprise", seconds=0.4)).governing(answering())
    answer = await request(app)
    assert not any("ratelimit" in name for name in answer.names())


async def test_a_denial_and_an_admission_have_the_same_fields():
    admitted = await request(Sidecar().governing(answering()))
    refused = await request(Sidecar(lambda ask: denied(MINUTE)).governing(answering()))
    limits = {name for name in admitted.names() if "ratelimit" in name}
    assert {name for name in refused.names() if "ratelimit" in name} == limits
    assert admitted["ratelimit"] == refused["ratelimit"]


def longest_first(decision: Decision) -> list[Window]:
    return sorted(decision.windows, key=lambda window: -window.window)
