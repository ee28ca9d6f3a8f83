"""Changes of quotas: one path in for all that carry items and an idempotency key.

`consume`, `release`, `reserve`, `commit` and `cancel` are hot endpoints (`hot.py`). Reading quotas,
and setting a level, is FastAPI's (`quotas.py`).
"""

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import msgspec

from partywall_service.api.problems import Problem, invalid
from partywall_service.api.quota_bodies import (
    KEY_HEADER,
    KEY_PATTERN,
    MAY_BE_EMPTY,
    RESERVATION_PATTERN,
    Amount,
    Change,
    QuotaCancel,
    QuotaChange,
    QuotaCommit,
    QuotaHold,
    QuotaItems,
    QuotaReserved,
    QuotaSettled,
)
from partywall_service.api.raw import LONGEST, Answer, Receive, decode, fault_of, read_body
from partywall_service.api.schemas import MEANINGS, PRINTABLE
from partywall_service.names import (
    EXPECTED_NAME,
    EXPECTED_TENANT,
    QUOTA_VERBS,
    is_name,
    is_tenant_id,
)
from partywall_service.quotas.errors import QuotaError, UnknownResource
from partywall_service.quotas.model import Outcome, SettledAs
from partywall_service.quotas.service import Quotas, Request

MAX_BODY = 64 * 1024
"""Bytes: several times the largest change."""

_PATH = re.compile(
    f"/v1/tenants/([^/]*)/quotas/(?:({'|'.join(QUOTA_VERBS)})|reservations/([^/]*)/(commit|cancel))"
)
_is_reservation = re.compile(RESERVATION_PATTERN.strip("^$")).fullmatch
_is_key = re.compile(KEY_PATTERN.strip("^$")).fullmatch
_is_printable = re.compile(PRINTABLE.strip("^$")).fullmatch

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


def _decoded(verb: str, body: bytes) -> Change:
    decoder = _DECODERS[verb]
    try:
        change: Change = decode(decoder, body or (b"{}" if verb in MAY_BE_EMPTY else b""))
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


async def _apply(quotas: Quotas, asked: QuotaPath, change: Change, request: Request) -> Outcome:
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
