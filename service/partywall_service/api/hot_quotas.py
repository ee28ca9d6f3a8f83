"""Changes of quotas: one path in for all that carry items and an idempotency key.

`consume`, `release`, `reserve`, `commit` and `cancel` are hot endpoints (`hot.py`). Reading quotas,
and setting a level, is FastAPI's (`quotas.py`).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar, NamedTuple

import msgspec

from partywall_service.api.problems import Problem, invalid
from partywall_service.api.raw import (
    COMMON,
    LONGEST,
    Answer,
    HotRoute,
    Receive,
    decode,
    fault_of,
    read_body,
)
from partywall_service.api.schemas import MEANINGS, PRINTABLE
from partywall_service.names import (
    EXPECTED_NAME,
    EXPECTED_TENANT,
    NAME_PATTERN,
    TENANT_PATTERN,
    is_name,
    is_tenant_id,
)
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas.model import Crossing, Outcome, QuotaState, SettledAs
from partywall_service.quotas.service import QuotaError, Quotas, Request, UnknownResource

MAX_ITEMS = 64
"""Resources to one change."""

MAX_BODY = 64 * 1024
"""Bytes: several times the largest change."""

RESERVATION_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
KEY_PATTERN = "^[!-~]{1,255}$"
"""An `Idempotency-Key`: visible ASCII, so that any client can send it again as it was."""

KEY_HEADER = "Idempotency-Key"
KEY_MEANS = "The same again within 24 hours gives the first answer, and changes nothing."

_PATH = re.compile(
    "/v1/tenants/([^/]*)/quotas/(?:(consume|release|reserve)|reservations/([^/]*)/(commit|cancel))"
)
_is_reservation = re.compile(RESERVATION_PATTERN.strip("^$")).fullmatch
_is_key = re.compile(KEY_PATTERN.strip("^$")).fullmatch
_is_printable = re.compile(PRINTABLE.strip("^$")).fullmatch

Amount = Annotated[
    int,
    msgspec.Meta(ge=1, le=MAX_AMOUNT, description="In units of the resource: bytes for sizes."),
]
Items = Annotated[
    dict[str, Amount],
    msgspec.Meta(
        min_length=1,
        max_length=MAX_ITEMS,
        description="Amounts by resource: all of them or none.",
        examples=[{"users": 1, "storage": 1048576}],
        extra_json_schema={"propertyNames": {"pattern": NAME_PATTERN}},
    ),
]
Reason = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=500,
        description="For the ledger: why.",
        extra_json_schema={"pattern": PRINTABLE},
    ),
]


class QuotaItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is consumed or released."""

    items: Items
    reason: Reason | None = None


class QuotaHold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is reserved, and for how many seconds."""

    reason: ClassVar[str | None] = None  # holding writes no line of the ledger

    items: Items
    ttl: Annotated[int, msgspec.Meta(ge=1, le=86400, description="Seconds.")] = 60


class QuotaCommit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is consumed of a reservation: all of it when `items` is left out."""

    items: Items | None = None
    reason: Reason | None = None


class QuotaCancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: all of the reservation goes back."""

    reason: ClassVar[str | None] = None  # no more than holding does
    items: ClassVar[dict[str, int] | None] = None


_Change = QuotaItems | QuotaHold | QuotaCommit | QuotaCancel


class QuotaChange(msgspec.Struct, frozen=True):
    """What came of consuming or releasing.

    `quotas` are those it touched, as they stand after it; `denied` names the resources that had no
    room, and then nothing was changed; `crossings` are the thresholds that it crossed.
    """

    allowed: bool
    tenant: str
    denied: tuple[str, ...]
    quotas: tuple[QuotaState, ...]
    crossings: tuple[Crossing, ...]


class QuotaReserved(msgspec.Struct, frozen=True):
    """What came of reserving; `reservation` and `expires_at` only where it is allowed."""

    allowed: bool
    tenant: str
    denied: tuple[str, ...]
    quotas: tuple[QuotaState, ...]
    crossings: tuple[Crossing, ...]
    reservation: str | msgspec.UnsetType = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType = msgspec.UNSET


class QuotaSettled(msgspec.Struct, frozen=True):
    """A reservation that was ended, and its quotas after it."""

    reservation: str
    status: SettledAs
    quotas: tuple[QuotaState, ...]
    crossings: tuple[Crossing, ...]


_encoder = msgspec.json.Encoder()
_amount_decoder = msgspec.json.Decoder(Amount)


class _Loose(msgspec.Struct):
    """A body of which only the resources are read."""

    items: dict[str, msgspec.Raw]


_loose_decoder = msgspec.json.Decoder(_Loose)
_DECODERS: Mapping[str, msgspec.json.Decoder[Any]] = {
    "consume": msgspec.json.Decoder(QuotaItems),
    "release": msgspec.json.Decoder(QuotaItems),
    "reserve": msgspec.json.Decoder(QuotaHold),
    "commit": msgspec.json.Decoder(QuotaCommit),
    "cancel": msgspec.json.Decoder(QuotaCancel),
}
_MAY_BE_EMPTY = ("commit", "cancel")


def _parameter(
    name: str, where: str, pattern: str, description: str, example: str
) -> Mapping[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }


_TENANT = _parameter("tenant", "path", TENANT_PATTERN, "The tenant's id.", "acme")
_RESERVATION = _parameter(
    "reservation", "path", RESERVATION_PATTERN, "As `reserve` named it.", "d0f3a9c51d2e74b6a8c0e1f2"
)
_KEY = _parameter(
    KEY_HEADER, "header", KEY_PATTERN, KEY_MEANS, "3f2b8c1e-0a55-4a7e-9d11-6f4c0b7e8d21"
)
_PROBLEMS = (*COMMON, "unknown-tenant", "unknown-resource", "conflict")


def _route(
    path: str, summary: str, asked: object, answered: object, description: str, *slugs: str
) -> HotRoute:
    return HotRoute(
        f"/v1/tenants/{{tenant}}/quotas/{path}",
        "POST",
        summary,
        asked,
        answered,
        (*_PROBLEMS, *slugs),
        tag="quotas",
        description=description,
        parameters=(_TENANT, _RESERVATION, _KEY) if "reservations" in path else (_TENANT, _KEY),
        body_required=path.rpartition("/")[-1] not in _MAY_BE_EMPTY,
    )


QUOTA_ROUTES = (
    _route(
        "consume",
        "Take of quotas",
        QuotaItems,
        QuotaChange,
        "All of the items or none. A denial is an answer: `allowed` is false, nothing was changed.",
    ),
    _route(
        "release",
        "Give back to quotas",
        QuotaItems,
        QuotaChange,
        "All of the items or none. Below zero it is a `conflict`.",
    ),
    _route(
        "reserve",
        "Hold of quotas for a while",
        QuotaHold,
        QuotaReserved,
        "All of the items or none, until committed, cancelled or `ttl` seconds have passed.",
    ),
    _route(
        "reservations/{reservation}/commit",
        "Consume what is reserved",
        QuotaCommit,
        QuotaSettled,
        "All of it, or of each resource what `items` says; the rest goes back.",
        "unknown-reservation",
    ),
    _route(
        "reservations/{reservation}/cancel",
        "Give back what is reserved",
        QuotaCancel,
        QuotaSettled,
        "All of it.",
        "unknown-reservation",
    ),
)


class QuotaPath(NamedTuple):
    """A path that changes quotas; `reservation` is None unless the path names one."""

    tenant: str
    verb: str
    reservation: str | None = None


def quota_path(path: str) -> QuotaPath | None:
    """What a path asks for; None when it changes no quota."""
    found = _PATH.fullmatch(path)
    if found is None:
        return None
    tenant, verb, reservation, ending = found.groups()
    return QuotaPath(tenant, verb or ending, reservation)


async def answer_change(
    quotas: Quotas,
    asked: QuotaPath,
    actor: str,
    headers: Iterable[tuple[bytes, bytes]],
    receive: Receive,
) -> Answer:
    """Does what a POST of such a path asks.

    Args:
        quotas: everybody's.
        asked: the path.
        actor: who asks; it may.
        headers: the request's, raw.
        receive: the request's body.

    Raises:
        Problem: whatever is wrong with the request; or `conflict`, `unknown-reservation`.
        QuotaError: the tenant or a resource is unknown.
        LedgerUnavailable, StoreError: as `Quotas.consume`.
    """
    check_tenant(asked.tenant)
    if asked.reservation is not None and not _is_reservation(asked.reservation):
        raise invalid("reservation", "expected 1 to 64 letters, digits, '-' or '_'")
    key = idempotency_key(headers)
    change = _decoded(asked.verb, await read_body(receive, MAX_BODY))
    place = "" if asked.reservation is None else f"reservations/{asked.reservation}/"
    path = f"POST quotas/{place}{asked.verb}"
    request = request_of(path, change, actor=actor, key=key, reason=change.reason)
    outcome = await _apply(quotas, asked, change, request)
    return Answer(200, "application/json", _encoder.encode(_answer(asked, outcome)))


def request_of(
    path: str, body: object, *, actor: str, key: str | None, reason: str | None
) -> Request:
    """Who asks for a change, and by what its repetition is known.

    Args:
        path: the method and the path below the tenant, which is the operation's own.
        body: as it was read. What counts is what it says: neither the order of its keys nor its
            spaces, nor whether a default was written out.
        actor: for the ledger.
        key: the idempotency key.
        reason: for the ledger.
    """
    fingerprint = b""
    if key is not None:
        said = f"{path}\n".encode() + msgspec.json.encode(body, order="sorted")
        fingerprint = hashlib.sha256(said).digest()
    return Request(actor, fingerprint, key, path, reason)


def check_tenant(tenant: str) -> None:
    """Refuses what can be no tenant's id.

    Raises:
        Problem: `invalid-request`.
    """
    if not is_tenant_id(tenant):
        raise invalid("tenant", EXPECTED_TENANT)


def idempotency_key(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The `Idempotency-Key` in raw ASGI headers, or None.

    Raises:
        Problem: `invalid-request` when it is none, or came twice.
    """
    given = [value for name, value in headers if name == b"idempotency-key"]
    if not given:
        return None
    key = given[0].decode("latin-1").strip()
    if len(set(given)) > 1 or not _is_key(key):
        raise invalid(KEY_HEADER, "expected one, of 1 to 255 visible ASCII characters")
    return key


def refusal_of(outcome: Outcome) -> Problem | None:
    """The problem that an operation was refused with, if it was."""
    detail = outcome.detail or "it cannot be done"
    match outcome.refusal:
        case None:
            return None
        case "invalid-request":
            return invalid("items", detail)
        case slug:
            return Problem(slug, detail)


def quota_problem_of(error: QuotaError) -> Problem:
    """The problem of a question that cannot be answered."""
    if not isinstance(error, UnknownResource):
        return Problem("unknown-tenant", str(error))
    if not is_name(error.resource):
        return invalid(f"items.{error.resource[:LONGEST]}", EXPECTED_NAME)
    return Problem("unknown-resource", str(error))


def _decoded(verb: str, body: bytes) -> _Change:
    decoder = _DECODERS[verb]
    try:
        change: _Change = decode(decoder, body or (b"{}" if verb in _MAY_BE_EMPTY else b""))
    except Problem as problem:
        raise _naming_the_item(problem, body) from problem
    if change.reason is not None and not (change.reason.strip() and _is_printable(change.reason)):
        raise invalid("reason", f"expected {MEANINGS[PRINTABLE]}, and more than spaces")
    return change


def _naming_the_item(problem: Problem, body: bytes) -> Problem:
    """The problem with the resource whose amount is at fault: msgspec names no keys."""
    (error,) = problem.errors or ({},)
    if error.get("field") != "items[...]":
        return problem
    try:
        items = _loose_decoder.decode(body).items
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return problem
    for name, amount in items.items():
        try:
            _amount_decoder.decode(amount)
        except msgspec.MsgspecError as exc:
            return invalid(f"items.{name[:LONGEST]}", fault_of(str(exc))[1])
    return problem


async def _apply(quotas: Quotas, asked: QuotaPath, change: _Change, request: Request) -> Outcome:
    match change:
        case QuotaItems():
            taking = asked.verb == "consume"
            apply = quotas.consume if taking else quotas.release
            outcome = await apply(asked.tenant, change.items, request)
        case QuotaHold():
            outcome = await quotas.reserve(asked.tenant, change.items, change.ttl, request)
        case QuotaCommit() | QuotaCancel():
            status: SettledAs = "committed" if asked.verb == "commit" else "cancelled"
            named = asked.reservation or ""
            outcome = await quotas.settle(asked.tenant, named, status, change.items, request)
    refusal = refusal_of(outcome)
    if refusal is not None:
        raise refusal
    return outcome


def _answer(asked: QuotaPath, outcome: Outcome) -> msgspec.Struct:
    if outcome.status is not None:
        return QuotaSettled(
            outcome.reservation or "", outcome.status, outcome.quotas, outcome.crossings
        )
    told = (outcome.allowed, asked.tenant, outcome.denied, outcome.quotas, outcome.crossings)
    if outcome.reservation is not None and outcome.expires_at is not None:
        return QuotaReserved(*told, outcome.reservation, outcome.expires_at)
    return QuotaChange(*told)
