"""Forms that change a tenant. Each does what the REST API does, by the API's own functions."""

import re
from collections.abc import Mapping
from typing import Literal, get_args

from fastapi import APIRouter, Request, Response
from pydantic import ValidationError

from partywall_service.api.auth import Principal
from partywall_service.api.deps import Admin, Host, Parts, PartsDep
from partywall_service.api.errors import faults_of
from partywall_service.api.overrides import check, delete_override, put_override
from partywall_service.api.params import KindPath, NamePath, TenantPath
from partywall_service.api.problems import Problem
from partywall_service.api.schemas import OverrideChange, TenantChange
from partywall_service.api.tenants import known, put_tenant
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.pages import go
from partywall_service.dashboard.routing import PageRoute
from partywall_service.dashboard.tenant import tenant_page
from partywall_service.ledger.records import OverrideKind
from partywall_service.names import is_name

FIELDS = ("of", "value", "expires_at", "reason")
"""Of the form; `of` is a kind and a name, as `limits:requests`."""

KINDS: tuple[OverrideKind, ...] = get_args(OverrideKind)

router = APIRouter(prefix=f"{HOME}/tenants/{{tenant}}", route_class=PageRoute)

_WHOLE = re.compile(r"-?[0-9]{1,16}")
_LOCAL = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d)?", re.ASCII)


@router.post("/overrides")
async def set_override(
    request: Request, tenant: TenantPath, parts: PartsDep, caller: Admin
) -> Response:
    """Sets an override, or shows the form again with what was expected."""
    typed = {name: _text(request, name) for name in FIELDS}
    kind, name = _named(typed["of"])
    value = _value(kind, name, typed["value"])
    change, faults = _change(value, typed)
    try:
        if kind is None:
            faults["of"] = "expected a limit, a quota or a setting of jobs"
        elif change is not None:
            await put_override(tenant, kind, name, change, parts, caller)
            return _back(tenant, "override-set")
        elif "value" not in faults:
            check(parts.policy.current, kind, name, value)  # all that is wrong is told at once
    except Problem as problem:
        faults |= _told(problem)
    return await tenant_page(request, tenant, parts, caller, typed=typed, faults=faults)


@router.post("/overrides/{kind}/{name}/end")
async def end_override(
    tenant: TenantPath, kind: KindPath, name: NamePath, parts: PartsDep, caller: Admin
) -> Response:
    """The tier applies again."""
    await delete_override(tenant, kind, name, parts, caller)
    return _back(tenant, "override-ended")


@router.post("/suspend")
async def suspend(tenant: TenantPath, parts: PartsDep, caller: Host) -> Response:
    """Its checks are denied, its jobs wait."""
    return await _set_status(parts, tenant, "suspended", caller)


@router.post("/activate")
async def activate(tenant: TenantPath, parts: PartsDep, caller: Host) -> Response:
    """As it was before, or for the first time."""
    return await _set_status(parts, tenant, "active", caller)


async def _set_status(
    parts: Parts, tenant: str, status: Literal["active", "suspended"], caller: Principal
) -> Response:
    record = known(await parts.ledger.get_tenant(tenant), tenant)
    change = TenantChange.model_validate({"tier": record.tier, "status": status})
    await put_tenant(tenant, change, parts, caller, Response())
    return _back(tenant, status)


def _text(request: Request, name: str) -> str:
    value = request.state.form.get(name)
    return value.strip() if isinstance(value, str) else ""


def _back(tenant: str, note: str) -> Response:
    return go(f"{HOME}/tenants/{tenant}", note=note)


def _named(of: str) -> tuple[OverrideKind | None, str]:
    kind, _, name = of.partition(":")
    return next((one for one in KINDS if one == kind and is_name(name)), None), name


def _change(
    value: str | int, typed: Mapping[str, str]
) -> tuple[OverrideChange | None, dict[str, str]]:
    """What the API would have been sent; or None, and what is wrong with it by field."""
    sent = {"value": value, "reason": typed["reason"]}
    if ends := typed["expires_at"]:
        # What browsers send of `datetime-local` has no offset; the label says UTC.
        local = _LOCAL.fullmatch(ends)
        sent["expires_at"] = ends if local is None else f"{ends}Z" if local[1] else f"{ends}:00Z"
    try:
        return OverrideChange.model_validate(sent), {}
    except ValidationError as error:
        found = faults_of([{**one, "loc": ("body", *one["loc"])} for one in error.errors()])
        return None, {one["field"]: one["reason"] for one in found}


def _value(kind: OverrideKind | None, name: str, text: str) -> str | int:
    """A form has but text: where there can be numbers, one is what JSON would have as such."""
    counted = kind == "quotas" or (kind == "jobs" and name in ("concurrency", "max_queued"))
    return int(text) if text == "-1" or (counted and _WHOLE.fullmatch(text)) else text


def _told(problem: Problem) -> dict[str, str]:
    """What a refusal of the API's is about, by field of the form.

    Raises:
        Problem: it is none of the form's.
    """
    if problem.slug in ("unknown-limit", "unknown-resource"):
        return {"of": problem.detail}
    if problem.errors is None:
        raise problem
    return {
        "of" if one["field"] == "name" else one["field"]: one["reason"] for one in problem.errors
    }
