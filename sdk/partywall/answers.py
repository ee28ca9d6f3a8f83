"""What comes back from a sidecar, and what does not: every failure as one of `partywall.errors`.

Source: RFC 9457 (problem details); docs/contract.md section 4 for the slugs.
"""

from collections.abc import Mapping
from typing import NamedTuple

import httpx
import msgspec

from partywall.errors import (
    ConfigurationError,
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    PartywallError,
    QueueFull,
    SidecarError,
    SidecarUnavailable,
    Unauthenticated,
    UnexpectedAnswer,
    UnknownJob,
    UnknownLimit,
    UnknownReservation,
    UnknownResource,
    UnknownTenant,
)

PROBLEM_PREFIX = "urn:partywall:problem:"

HOW_TO_AUTHENTICATE = "make one with `partywall tokens create --scope host --name myapp`"

DRIVER_ERRORS = (
    httpx.HTTPError,
    httpx.InvalidURL,
    httpx.StreamError,
    httpx.CookieConflict,
    OSError,  # what the driver let through
)
"""Everything that sending a request and reading its answer may raise."""

NOTHING_SENT = (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout)
"""Those after which the sidecar cannot have heard anything."""

_BY_SLUG: Mapping[str, type[SidecarError]] = {
    "unauthenticated": Unauthenticated,
    "forbidden": Forbidden,
    "unknown-tenant": UnknownTenant,
    "unknown-limit": UnknownLimit,
    "unknown-resource": UnknownResource,
    "unknown-reservation": UnknownReservation,
    "unknown-job": UnknownJob,
    "internal": SidecarError,
}

_BY_STATUS: Mapping[int, type[SidecarError]] = {
    401: Unauthenticated,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
}
"""For slugs that have no class of their own, and those of a later version."""

AWAY = (502, 503, 504)
"""A sidecar says 503 while it cannot decide; a gateway says any of them when it finds none."""


class Reply(NamedTuple):
    """An HTTP answer, read to its end."""

    status: int
    headers: httpx.Headers
    body: bytes


class _Fault(msgspec.Struct, frozen=True):
    field: str = ""
    reason: str = ""


class _Problem(msgspec.Struct, frozen=True):
    type: str = "about:blank"
    title: str = ""
    detail: str = ""
    errors: list[_Fault] = []


_problems = msgspec.json.Decoder(_Problem)


def error_of(reply: Reply, asked: str) -> SidecarError:
    """The error that an answer other than 2xx stands for.

    Args:
        reply: the answer.
        asked: method, path and sidecar, for the message.
    """
    problem = _problem_of(reply)
    if problem is None:
        if reply.status in AWAY:
            return SidecarUnavailable(
                f"{asked} was answered {reply.status}, and not by a sidecar", retry_after(reply)
            )
        return unexpected(reply, asked)
    slug = problem.type.removeprefix(PROBLEM_PREFIX)
    said = problem.detail or problem.title or slug
    if reply.status == 503:
        return SidecarUnavailable(said, retry_after(reply))
    if slug == "queue-full":
        return QueueFull(said, retry_after(reply))
    if reply.status in (400, 413, 422):
        return InvalidRequest(said, [(fault.field, fault.reason) for fault in problem.errors])
    if reply.status == 401:
        return Unauthenticated(f"{said}; {HOW_TO_AUTHENTICATE}")
    kind = _BY_SLUG.get(slug) or _BY_STATUS.get(reply.status)
    return kind(said) if kind is not None else unexpected(reply, asked)


def is_problem(reply: Reply) -> bool:
    """Whether a sidecar said it, and not something in front of it."""
    return _problem_of(reply) is not None


def unexpected(reply: Reply, asked: str) -> UnexpectedAnswer:
    """The error of an answer that is not Partywall's, or of another version's."""
    kind = reply.headers.get("content-type", "no content type")
    return UnexpectedAnswer(
        f"{asked} was answered {reply.status} with {len(reply.body)} bytes of {kind[:80]}, "
        "which no Partywall sidecar of this version says; is the URL right?"
    )


def translated(exc: Exception, asked: str) -> PartywallError:
    """The driver's error as ours; raise it `from exc`."""
    said = str(exc) or type(exc).__name__
    match exc:
        case httpx.InvalidURL() | httpx.UnsupportedProtocol():
            return ConfigurationError(f"{asked}: {said}")
        case httpx.HTTPStatusError() | httpx.TooManyRedirects() | httpx.DecodingError():
            return UnexpectedAnswer(f"{asked}: {said}")
        case httpx.CookieConflict():
            return UnexpectedAnswer(f"{asked}: {said}")
        case httpx.ConnectError() | httpx.ConnectTimeout():
            return SidecarUnavailable(f"{asked}: nobody answers there ({said})")
        case _:
            return SidecarUnavailable(f"{asked}: the connection broke ({said})")


def retry_after(reply: Reply) -> float | None:
    """What Retry-After says in seconds; None where it says nothing, or a date."""
    said = reply.headers.get("retry-after", "").strip()
    return float(said) if said.isascii() and said.isdecimal() and len(said) < 10 else None


def _problem_of(reply: Reply) -> _Problem | None:
    try:
        problem = _problems.decode(reply.body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None
    return problem if problem.type.startswith(PROBLEM_PREFIX) else None
