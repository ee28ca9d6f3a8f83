"""What every raw ASGI endpoint stands on: reading a body, decoding it, answering.

A FastAPI route costs several times what a decision does, so the hot endpoints read and write by
msgspec and never reach it.
"""

import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from typing import Any, NamedTuple, TypeVar

import msgspec

from partywall_service.api.problems import CONTENT_TYPE, Problem, invalid

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

Decoded = TypeVar("Decoded")

AUTHZ = "/v1/authz"
"""For gateways: any method, and any path below it."""

LONGEST = 200
"""Characters of a client's own text that an error repeats."""

COMMON = ("unauthenticated", "forbidden", "too-large", "invalid-request", "unavailable")
"""Problems that every endpoint under /v1 may answer with."""

_PLAIN = {
    "`int`": "a whole number",
    "`float`": "a number with a fraction",
    "`str`": "text",
    "`bool`": "true or false",
    "`object`": "an object",
    "`array`": "a list",
    "`null`": "null",
}
_MEMBER_FAULT = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)


class HotRoute(NamedTuple):
    """One hot path, as the dispatcher and the OpenAPI document need it.

    `request_type` and `response_type` are msgspec types; None where there is no body. `parameters`
    are OpenAPI's own, of the path and the headers. Where no body is required, it may be empty.
    """

    path: str
    method: str
    summary: str
    request_type: Any
    response_type: Any
    problems: tuple[str, ...]
    tag: str = "checks"
    description: str | None = None
    parameters: tuple[Mapping[str, Any], ...] = ()
    body_required: bool = True


class Answer(NamedTuple):
    """A response: status, content type, body, further headers."""

    status: int
    content_type: str
    body: bytes
    headers: Iterable[tuple[str, str]] = ()


def decode(decoder: msgspec.json.Decoder[Decoded], body: bytes) -> Decoded:
    """What a body holds.

    Raises:
        Problem: `invalid-request`, naming the field at fault.
    """
    try:
        return decoder.decode(body)
    except msgspec.ValidationError as exc:
        raise invalid(*fault_of(str(exc))) from exc
    except (msgspec.DecodeError, UnicodeDecodeError) as exc:
        raise invalid("body", f"expected JSON: {exc}") from exc


def fault_of(said: str) -> tuple[str, str]:
    """The field that msgspec speaks of, and what is wrong with it."""
    reason, at, path = said.rpartition(" - at `$")
    if not at:
        reason, path = said, ""
    field = path.rstrip("`").lstrip(".")
    member = _MEMBER_FAULT.fullmatch(reason)
    if member is None:
        return field or "body", _plain(reason)[:LONGEST]
    which, name = member.groups()
    field = f"{field}.{name[:LONGEST]}" if field else name[:LONGEST]
    if which == "missing required":
        return field, "expected a value; got none"
    return field, "expected no field of this name"


def _plain(reason: str) -> str:
    """Msgspec's sentence in a caller's words."""
    for term, plain in _PLAIN.items():
        reason = reason.replace(term, plain)
    return reason[:1].lower() + reason[1:]


async def read_body(receive: Receive, most: int) -> bytes:
    """The whole body of a request, of at most `most` bytes.

    Raises:
        Problem: `too-large`; or `invalid-request` when the client went away before it was all here.
    """
    message = await receive()
    if not message.get("more_body", False) and message["type"] == "http.request":
        body: bytes = message.get("body", b"")
        if len(body) > most:
            raise _too_large(most)
        return body
    chunks = []
    size = 0
    while True:
        if message["type"] == "http.disconnect":
            # Nobody reads this. What came of the body may be valid, but it was not all.
            raise invalid("body", "expected all of it; the client went away before")
        chunks.append(message.get("body", b""))
        size += len(chunks[-1])
        if size > most:
            raise _too_large(most)
        if not message.get("more_body", False):
            return b"".join(chunks)
        message = await receive()


def _too_large(most: int) -> Problem:
    return Problem("too-large", f"expected a body of at most {most} bytes")


def problem_answer(problem: Problem) -> Answer:
    """The problem as a response."""
    return Answer(problem.status, CONTENT_TYPE, problem.body(), problem.headers.items())


async def send_answer(answer: Answer, send: Send) -> None:
    """Sends a whole response."""
    status, content_type, body, further = answer
    headers = [
        (b"content-type", content_type.encode()),
        (b"content-length", b"%d" % len(body)),
    ]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in further]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
