"""The fake sidecar's REST API: the real one's paths, shapes and problems (docs/contract.md)."""

import re
from collections.abc import Callable
from urllib.parse import unquote

import httpx
import msgspec

from partywall._fake.bodies import read
from partywall._fake.core import CheckRequest, Core, TenantPut
from partywall._fake.job_api import job_answer
from partywall._fake.quota_api import quota_answer
from partywall._fake.refused import Refused
from partywall.protocol import (
    MAX_ITEMS,
    PermitsAnswer,
    PermitsRequest,
    UsageAnswer,
    UsageReport,
)
from partywall.records import TenantRecord

_PROBLEMS = {
    "unknown-tenant": (404, "No such tenant"),
    "unknown-limit": (404, "No tier names this limit"),
    "unknown-resource": (404, "No tier names this resource"),
    "unknown-reservation": (404, "No such reservation"),
    "unknown-job": (404, "No such job"),
    "not-found": (404, "Nothing here"),
    "method-not-allowed": (405, "Not this method"),
    "conflict": (409, "It conflicts with what is there"),
    "too-large": (413, "Too much in one request"),
    "invalid-request": (422, "The request is not understood"),
    "queue-full": (429, "As many jobs wait as may"),
}

_encode = msgspec.json.encode
_TENANTS = "/v1/tenants"


class _Tenants(msgspec.Struct):
    tenants: list[TenantRecord]
    next_cursor: str | None


def answer(core: Core, request: httpx.Request, body: bytes) -> httpx.Response:
    """What the sidecar answers; who asks is not looked at."""
    try:
        return _answer(core, request, body)
    except Refused as refused:
        return _problem(refused)


def _answer(core: Core, request: httpx.Request, body: bytes) -> httpx.Response:
    path = request.url.raw_path.decode().partition("?")[0]
    handler = _HOT.get(path)
    if handler is not None:
        _allow(request, "POST")
        return _json(200, handler(core, body))
    if path == "/healthz":
        return httpx.Response(200, text="ok\n")
    if path == _TENANTS:
        _allow(request, "GET")
        return _json(200, _list_tenants(core, request.url.params))
    if path.startswith(f"{_TENANTS}/"):
        tenant, *further = path.removeprefix(f"{_TENANTS}/").split("/")
        if further[:1] == ["jobs"]:
            return _json(*job_answer(core, unquote(tenant), further, request, body))
        if further:
            return _json(200, quota_answer(core, unquote(tenant), further, request, body))
        return _tenant(core, request.method, unquote(tenant), body)
    raise Refused("not-found", f"the fake sidecar has no {path}")


def _check(core: Core, body: bytes) -> object:
    decision = core.check(read(body, CheckRequest))
    if decision.reason == "unknown-tenant":
        raise Refused("unknown-tenant", f"no tenant {decision.tenant!r} is registered")
    if decision.reason == "unknown-limit":
        raise Refused("unknown-limit", f"no tier names a limit {decision.limit!r}")
    return decision


def _checks(core: Core, body: bytes) -> object:
    asked = read(body, list[CheckRequest])
    if len(asked) > MAX_ITEMS:
        raise Refused("too-large", f"expected at most {MAX_ITEMS} checks; got {len(asked)}")
    return [core.check(one) for one in asked]


def _permits(core: Core, body: bytes) -> object:
    permits = [core.lease(ask) for ask in read(body, PermitsRequest).asks]
    tiers = {permit.tier for permit in permits if permit.tier is not None}
    return PermitsAnswer(permits, {tier: core.policy.facts(tier) for tier in tiers})


def _usage(core: Core, body: bytes) -> object:
    return UsageAnswer(core.take(read(body, UsageReport)))


_HOT: dict[str, Callable[[Core, bytes], object]] = {
    "/v1/check": _check,
    "/v1/checks": _checks,
    "/v1/permits": _permits,
    "/v1/usage": _usage,
}


def _list_tenants(core: Core, params: httpx.QueryParams) -> _Tenants:
    found = [
        record
        for _, record in sorted(core.tenants.items())
        if record.id > params.get("cursor", "")
        and params.get("tier", record.tier) == record.tier
        and params.get("status", record.status) == record.status
        and ("domain" not in params or params["domain"].lower() in record.domains)
    ]
    size = int(params.get("page_size", "100"))
    return _Tenants(found[:size], found[size - 1].id if len(found) > size else None)


def _tenant(core: Core, method: str, tenant: str, body: bytes) -> httpx.Response:
    if method == "PUT":
        try:
            put = read(body, TenantPut)
        except Refused as exc:  # the real one's other reader writes a place in a list so
            field = re.sub(r"\[(\d+)\]", r".\1", exc.field or "")
            raise Refused(exc.slug, exc.detail, field) from exc
        record, created = core.put_tenant(tenant, put)
        return _json(201 if created else 200, record)
    if method != "GET":
        raise Refused("method-not-allowed", "the fake sidecar knows GET and PUT of a tenant")
    if tenant not in core.tenants:
        raise Refused("unknown-tenant", f"tenant {tenant!r} is not registered")
    return _json(200, core.tenants[tenant])


def _allow(request: httpx.Request, method: str) -> None:
    if request.method != method:
        raise Refused("method-not-allowed", f"{request.url.path} takes {method}")


def _json(status: int, document: object) -> httpx.Response:
    return httpx.Response(
        status, headers={"content-type": "application/json"}, content=_encode(document)
    )


def _problem(refused: Refused) -> httpx.Response:
    status, title = _PROBLEMS[refused.slug]
    document: dict[str, object] = {
        "type": f"urn:partywall:problem:{refused.slug}",
        "title": title,
        "status": status,
        "detail": refused.detail,
    }
    if refused.field is not None:
        document["detail"] = f"{refused.field}: {refused.detail}"
        document["errors"] = [{"field": refused.field, "reason": refused.detail}]
    headers = {"content-type": "application/problem+json"}
    if refused.slug == "queue-full":
        headers["retry-after"] = "1"
    return httpx.Response(status, headers=headers, content=_encode(document))
