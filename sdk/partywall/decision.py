"""What a check answers, and how an HTTP client is told of it.

Sources: docs/contract.md sections 4 and 5; draft-ietf-httpapi-ratelimit-headers-11 (`RateLimit`,
`RateLimit-Policy`), RFC 9651 (structured fields), RFC 9110 section 10.2.3 (`Retry-After`).
"""

import math
from typing import Literal

import msgspec

HeaderFamily = Literal["ietf", "legacy", "both", "none"]
Reason = Literal[
    "limit-exceeded", "tenant-suspended", "unknown-tenant", "unknown-limit", "unavailable"
]
"""`unavailable`: nothing could decide, and the limit or the app is `closed` then. The SDK alone
says so; over REST it is the problem of that name."""

MOST = 10**15 - 1
"""The largest integer RFC 9651 knows; a larger one would make a client drop the whole field."""

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"


class Window(msgspec.Struct, frozen=True, gc=False):
    """One sliding window of a limit, as it stood when the decision was made.

    Attributes:
        quota: the cost admitted in any interval of the window's length, at most.
        window: its length in seconds.
        remaining: what could still be admitted now; never below zero.
        reset_after: seconds until it is wholly free again, absent traffic.
    """

    quota: int
    window: int
    remaining: int
    reset_after: float


class Decision(msgspec.Struct, frozen=True, gc=False):
    """The answer to one check; truthy when allowed.

    Attributes:
        allowed: whether the request may go on.
        tenant: the tenant asked for.
        tier: its tier; None when the tenant is unknown.
        limit: the limit asked for.
        cost: the cost asked for, a whole number from 1.
        reason: why not; None when allowed.
        degraded: decided without the shared store, so by this process's share alone.
        remaining: the least of the windows' `remaining`; None when unlimited.
        retry_after: seconds after which the same check is admitted, absent other traffic;
            0.0 when allowed, None when this cost never can be.
        reset_after: seconds until every window is wholly free again, absent traffic.
        windows: each window of the limit; empty when unlimited.
    """

    allowed: bool
    tenant: str
    tier: str | None
    limit: str
    cost: int
    reason: Reason | None = None
    degraded: bool = False
    remaining: int | None = None
    retry_after: float | None = 0.0
    reset_after: float = 0.0
    windows: tuple[Window, ...] = ()

    def __bool__(self) -> bool:
        return self.allowed


def rate_limit_headers(
    decision: Decision, family: HeaderFamily = "both", *further: Decision
) -> dict[str, str]:
    """The headers a governed response carries, by docs/contract.md section 5.

    The longest window bears the limit's bare name, further ones the name and their length in
    seconds (`"requests-1s"`). The legacy family speaks of the window with the least remaining.
    A denial adds `Retry-After` in whole seconds, rounded up, when there is a moment to name.

    Args:
        decision: the one that the response hangs on.
        family: which headers; `Retry-After` comes with each.
        further: decisions of other limits that the same request was charged to.
    """
    headers: dict[str, str] = {}
    if family != "none":
        named = named_windows(decision.limit, decision.windows)
        for other in further:
            named += named_windows(other.limit, other.windows)
        if named:
            if family != "legacy":
                headers["RateLimit-Policy"] = policies(named)
                headers["RateLimit"] = ", ".join(
                    [
                        f'"{name}";r={min(one.remaining, MOST)};t={math.ceil(one.reset_after)}'
                        for name, one in named
                    ]
                )
            if family != "ietf":
                least = tightest(named)
                headers["X-RateLimit-Limit"] = str(least.quota)
                headers["X-RateLimit-Remaining"] = str(least.remaining)
                headers["X-RateLimit-Reset"] = str(math.ceil(least.reset_after))
    if not decision.allowed and decision.retry_after is not None:
        headers["Retry-After"] = str(math.ceil(decision.retry_after))
    return headers


Named = list[tuple[str, Window]]
"""Windows with their names in the headers."""


def named_windows(limit: str, windows: tuple[Window, ...]) -> Named:
    """A limit's windows, the longest first: it bears the bare name, as docs/contract.md has it."""
    if len(windows) == 1:
        return [(limit, windows[0])]
    longest_first = sorted(windows, key=lambda window: -window.window)
    return [
        (limit if rank == 0 else f"{limit}-{window.window}s", window)
        for rank, window in enumerate(longest_first)
    ]


def policies(named: Named) -> str:
    """The value of `RateLimit-Policy`."""
    return ", ".join([f'"{name}";q={min(one.quota, MOST)};w={one.window}' for name, one in named])


def tightest(named: Named) -> Window:
    """The window with the least remaining, of which the legacy family speaks."""
    return named[0][1] if len(named) == 1 else min([one for _, one in named], key=_room)


def violated_policies(decision: Decision) -> list[str]:
    """The names, as in `RateLimit-Policy`, of the windows that had no room for the cost."""
    return [
        name
        for name, window in named_windows(decision.limit, decision.windows)
        if window.remaining < decision.cost
    ]


def denial_problem(decision: Decision, *, upgrade: str | None = None) -> dict[str, object]:
    """The body of a 429, as RFC 9457 problem details of the rate-limit draft's type.

    Args:
        decision: one that was denied for its limit.
        upgrade: the next tier that would have admitted it, if there is one.
    """
    document: dict[str, object] = {
        "type": QUOTA_EXCEEDED,
        "title": "Too many requests",
        "status": 429,
        "detail": _denial_sentence(decision),
        "violated-policies": violated_policies(decision),
        "tenant": decision.tenant,
        "tier": decision.tier,
    }
    if upgrade is not None:
        document["upgrade"] = upgrade
    return document


def _denial_sentence(decision: Decision) -> str:
    subject = f"Limit {decision.limit!r} of tier {decision.tier!r}"
    if decision.retry_after is None:
        return f"{subject} never admits a cost of {decision.cost}."
    return f"{subject} has no room now; try again in {math.ceil(decision.retry_after)} s."


def _room(window: Window) -> int:
    return window.remaining
