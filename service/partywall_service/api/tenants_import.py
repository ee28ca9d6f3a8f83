"""Many tenants at once: all of a list, or none of it."""

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from email.message import Message
from typing import Annotated, Any, NamedTuple

from fastapi import APIRouter, Query, Request
from pydantic import BaseModel, ConfigDict
from starlette.requests import ClientDisconnect

from partywall_service.api.deps import AuthenticatedRoute, Host, PartsDep
from partywall_service.api.import_lines import (
    JSON_SCHEMA,
    MAX_LINES,
    Fault,
    TenantLine,
    read_csv,
    read_json,
    text_of,
)
from partywall_service.api.openapi import problems
from partywall_service.api.problems import Problem, invalid
from partywall_service.ledger import DomainsTaken, Registration
from partywall_service.ledger.records import Status
from partywall_service.policy.model import Policy
from partywall_service.policy.values import expected_one_of

router = APIRouter(prefix="/v1/tenants", tags=["tenants"], route_class=AuthenticatedRoute)

MAX_ERRORS = 1000
"""Faults that one answer tells of."""

JSON, CSV = "application/json", "text/csv"

_BODY = {
    "required": True,
    "content": {
        JSON: {"schema": JSON_SCHEMA},
        CSV: {
            "schema": {
                "type": "string",
                "description": "With a header: tenant and tier, in any order; perhaps name, "
                "status, and domains with spaces or semicolons between.",
                "examples": ["tenant,tier,domains\nacme,pro,acme.example www.acme.example\n"],
            }
        },
    },
}


class Imported(BaseModel):
    """What became of the tenants."""

    model_config = ConfigDict(frozen=True)

    created: int
    updated: int
    unchanged: int


class _Read(NamedTuple):
    """A body that was read.

    Attributes:
        registrations: of the lines that are right.
        places: where each tenant's line is.
        faults: what is wrong with the others.
    """

    registrations: list[Registration]
    places: dict[str, int]
    faults: list[Fault]


_Take = Callable[[int, TenantLine], None]


@router.post(
    "/import",
    summary="Register or change many tenants",
    response_description="All of them are as asked now.",
    responses=problems("conflict"),
    openapi_extra={"requestBody": _BODY},
)
async def import_tenants(
    request: Request,
    parts: PartsDep,
    caller: Host,
    new_status: Annotated[
        Status, Query(description="Of new tenants for which the list names none.")
    ] = "active",
) -> Imported:
    """As so many PUTs, in one transaction: a fault of any line, and nothing is changed.

    What is left out of a line is kept; tenants that are not in the list stay as they are. Domains
    may go from one tenant of the list to another.
    """
    as_csv = _is_csv(request)
    try:
        body = await request.body()
    except ClientDisconnect as exc:  # nobody reads this
        raise invalid("body", "expected all of it; the client went away before") from exc
    # In a thread: reading ten thousand lines takes longer than anybody's check may wait.
    read = await asyncio.to_thread(_read, body, parts.policy.current, as_csv=as_csv)
    if read.faults:
        raise _problem("invalid-request", read.faults, as_csv=as_csv)
    try:
        done = await parts.ledger.put_tenants(
            read.registrations, new_status=new_status, actor=caller.actor
        )
    except DomainsTaken as exc:
        faults = _taken(exc.holders, read)
        raise _problem("conflict", faults, as_csv=as_csv) from exc
    _forget(parts.directory.forget, done.created, done.updated)
    return Imported(created=len(done.created), updated=len(done.updated), unchanged=done.unchanged)


def _forget(forget: Callable[[str], None], *changed: Collection[str]) -> None:
    for tenants in changed:
        for tenant in tenants:
            forget(tenant)


def _is_csv(request: Request) -> bool:
    """Which of the two a body says it is."""
    header = Message()
    header["Content-Type"] = given = request.headers.get("content-type", "")
    kind, charset = header.get_content_type(), header.get_param("charset", "utf-8")
    if kind not in (JSON, CSV) or not given or str(charset).lower() not in ("utf-8", "utf8"):
        raise invalid("content-type", f"expected {JSON} or {CSV}, in UTF-8; got {given[:60]!r}")
    return kind == CSV


def _read(body: bytes, policy: Policy, *, as_csv: bool) -> _Read:
    read = _Read([], {}, [])

    def take(where: int, line: TenantLine) -> None:
        if line.tier not in policy.tiers:
            said = expected_one_of(policy.tiers, line.tier)
            read.faults.append(Fault(where, "tier", said))
        read.places[line.tenant] = where
        read.registrations.append(
            Registration(line.tenant, line.tier, line.name, line.domains, line.status)
        )

    if as_csv:
        read.faults.extend(read_csv(text_of(body), take, most=MAX_LINES))
    else:
        try:
            read.faults.extend(read_json(body, take))
        except ValueError as exc:
            raise invalid("body", str(exc)) from exc
    return read


def _taken(holders: Mapping[str, str], read: _Read) -> list[Fault]:
    """Which lines want a domain that another tenant has."""
    return [
        Fault(read.places[one.tenant], "domains", f"domain {domain!r} belongs to tenant {holder!r}")
        for one in read.registrations
        for domain in one.domains or ()
        if (holder := holders.get(domain)) is not None
    ]


def _problem(slug: str, faults: Sequence[Fault], *, as_csv: bool) -> Problem:
    """Of `[3].tier` in a list, of `line 5: tier` in CSV; nothing was changed."""
    told: list[dict[str, Any]] = []
    for fault in sorted(faults, key=lambda fault: fault.where)[:MAX_ERRORS]:
        if as_csv:
            field = f"line {fault.where}{fault.field and ': '}{fault.field}"
        else:
            field = f"[{fault.where}]{fault.field and '.'}{fault.field}"
        told.append({"field": field, "reason": fault.reason})
    detail = "; ".join(f"{one['field']}: {one['reason']}" for one in told[:3])
    if len(faults) > 3:
        detail += f"; and {len(faults) - 3:,} more"
    return Problem(slug, f"nothing was changed: {detail}", errors=told)
