"""The hot endpoints, answered by a raw ASGI callable in front of FastAPI.

A FastAPI route costs several times what a decision does, so these paths are looked up in one
table, read and written by msgspec, and never reach FastAPI. The same table describes them in the
OpenAPI document (`openapi.merge_hot_routes`).
"""

import re
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from time import perf_counter
from typing import NamedTuple
from urllib.parse import parse_qs

import msgspec
import structlog

from partywall.decision import Decision, denial_problem, rate_limit_headers
from partywall.protocol import MAX_ITEMS, PermitsAnswer, PermitsRequest
from partywall_service.admission import (
    Admission,
    CheckRequest,
    LimitClosed,
    MalformedName,
    UnknownLimit,
    UnknownTenant,
)
from partywall_service.api.auth import Authenticator, Principal, presented_token
from partywall_service.api.hot_quotas import (
    QuotaPath,
    answer_change,
    quota_path,
    quota_problem_of,
)
from partywall_service.api.hot_usage import USAGE_ROUTE, answer_report
from partywall_service.api.problems import CONTENT_TYPE, Problem, invalid
from partywall_service.api.quota_bodies import QUOTA_ROUTES
from partywall_service.api.raw import (
    AUTHZ,
    COMMON,
    Answer,
    ASGIApp,
    HotRoute,
    Receive,
    Scope,
    Send,
    decode,
    problem_answer,
    read_body,
    send_answer,
)
from partywall_service.api.request_ids import (
    Unavailable,
    fields_of,
    given_id,
    identified,
    log_answer,
    name_tenant,
)
from partywall_service.engine.base import StoreError
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.permits import InvalidItem, Permits
from partywall_service.policy.holder import PolicyHolder
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.policy.upgrade import upgrade
from partywall_service.quotas.errors import QuotaError
from partywall_service.quotas.service import Quotas
from partywall_service.usage.reported import Reported

MAX_CHECKS = 1000
MAX_BODY = 1024 * 1024
"""Bytes: a thousand checks of the longest names fit twice, as many asks and returns once."""

log = structlog.get_logger()

_encoder = msgspec.json.Encoder()
_check_decoder = msgspec.json.Decoder(CheckRequest)
_checks_decoder = msgspec.json.Decoder(list[CheckRequest])
_permits_decoder = msgspec.json.Decoder(PermitsRequest)

_CHECK_ROUTES = (
    HotRoute(
        "/v1/check",
        "POST",
        "Decide one check",
        CheckRequest,
        Decision,
        (*COMMON, "unknown-tenant", "unknown-limit", "method-not-allowed"),
    ),
    HotRoute(
        "/v1/checks",
        "POST",
        "Decide up to 1000 checks, in order",
        list[CheckRequest],  # how many is no matter of shape: too many is `too-large`, not invalid
        list[Decision],
        (*COMMON, "method-not-allowed"),
    ),
    HotRoute(
        "/v1/permits",
        "POST",
        "Lease permits to an SDK process, and take unspent ones back",
        PermitsRequest,
        PermitsAnswer,
        (*COMMON, "method-not-allowed"),
    ),
)

HOT_ROUTES = (*_CHECK_ROUTES, USAGE_ROUTE, *QUOTA_ROUTES)


Handler = Callable[[Scope, Receive], Awaitable[Answer]]


class HotParts(NamedTuple):
    """What the hot endpoints answer with; `reported` is None where usage is not metered."""

    admission: Admission
    permits: Permits
    authenticator: Authenticator
    policy: PolicyHolder
    quotas: Quotas
    reported: Reported | None


class HotEndpoints:
    """Answers the hot paths; every other request goes on to `app`.

    Args:
        app: FastAPI, with everything else.
        log_all: whether changes of quotas are logged; checks are never.
    """

    def __init__(self, app: ASGIApp, *, log_all: bool = False) -> None:
        self._app = app
        self._log_all = log_all
        self._unavailable = Unavailable()
        self._parts: HotParts | None = None
        self._handlers: dict[str, Handler] = {
            "/v1/check": self._check,
            "/v1/checks": self._checks,
            "/v1/permits": self._permits,
            "/v1/usage": self._usage,
        }

    def open(self, parts: HotParts) -> None:
        """Gives it what it answers with, once that has started."""
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        handler = self._handlers.get(path)
        began: float | None = None
        if handler is None and (asked := quota_path(path)) is not None:
            handler = partial(self._quota, asked)
            began = perf_counter()
        if handler is not None:
            if scope["method"] != "POST":
                answer = problem_answer(
                    Problem("method-not-allowed", f"{path} takes POST", headers={"Allow": "POST"})
                )
            else:
                answer = await self._guarded(handler, scope, receive)
        elif path == AUTHZ or path.startswith(f"{AUTHZ}/"):
            answer = await self._guarded(self._authz, scope, receive)
        else:
            await self._app(scope, receive, send)
            return
        if answer.status >= 400 or given_id(scope["headers"]) is not None:
            answer = identified(answer, scope)
        await send_answer(answer, send)
        if self._log_all and began is not None:
            log_answer(scope, answer.status, perf_counter() - began)

    async def _guarded(
        self,
        handler: Handler,
        scope: Scope,
        receive: Receive,
    ) -> Answer:
        try:
            return await handler(scope, receive)
        except Problem as problem:
            if problem.status >= 500:
                self._unavailable.tell(scope, problem.detail)
            return problem_answer(problem)
        except MalformedName as exc:
            return problem_answer(invalid(exc.field, str(exc)))
        except UnknownTenant as exc:
            return problem_answer(Problem("unknown-tenant", str(exc)))
        except QuotaError as exc:
            return problem_answer(quota_problem_of(exc))
        except UnknownLimit as exc:
            return problem_answer(Problem("unknown-limit", str(exc)))
        except (LimitClosed, LedgerUnavailable, StoreError) as exc:
            self._unavailable.tell(scope, str(exc))
            return problem_answer(Problem("unavailable", str(exc)))
        except Exception:
            log.exception("api.fault", **fields_of(scope))
            return problem_answer(
                Problem("internal", "an unforeseen fault; the sidecar's log has it")
            )

    async def _check(self, scope: Scope, receive: Receive) -> Answer:
        parts, principal = await self._admitted(scope)
        request = decode(_check_decoder, await read_body(receive, MAX_BODY))
        _may_check(principal, [request])
        try:
            decision = await parts.admission.check(request)
        except Exception:
            name_tenant(scope, [request.tenant])
            raise
        return Answer(200, "application/json", _encoder.encode(decision))

    async def _checks(self, scope: Scope, receive: Receive) -> Answer:
        parts, principal = await self._admitted(scope)
        requests = decode(_checks_decoder, await read_body(receive, MAX_BODY))
        if len(requests) > MAX_CHECKS:
            raise Problem("too-large", f"expected at most {MAX_CHECKS} checks; got {len(requests)}")
        _may_check(principal, requests)
        try:
            decisions = await parts.admission.check_many(requests)
        except MalformedName as exc:
            raise invalid(f"[{exc.place}].{exc.field}", str(exc)) from exc
        except Exception:
            name_tenant(scope, (request.tenant for request in requests))
            raise
        return Answer(200, "application/json", _encoder.encode(decisions))

    async def _permits(self, scope: Scope, receive: Receive) -> Answer:
        parts, principal = await self._admitted(scope)
        if principal.scope == "tenant":
            raise Problem("forbidden", "permits are for host apps; a host's token is needed")
        request = decode(_permits_decoder, await read_body(receive, MAX_BODY))
        most = max(len(request.asks), len(request.returns))
        if most > MAX_ITEMS:
            raise Problem(
                "too-large", f"expected at most {MAX_ITEMS} asks and as many returns; got {most}"
            )
        try:
            answer = await parts.permits.answer(request)
        except InvalidItem as exc:
            raise invalid(exc.field, str(exc)) from exc
        except Exception:
            name_tenant(scope, (ask.tenant for ask in request.asks))
            raise
        return Answer(200, "application/json", _encoder.encode(answer))

    async def _usage(self, scope: Scope, receive: Receive) -> Answer:
        parts, principal = await self._admitted(scope)
        if principal.scope == "tenant":
            raise Problem("forbidden", "reports are of host apps; a host's token is needed")
        return await answer_report(parts.reported, receive)

    async def _quota(self, asked: QuotaPath, scope: Scope, receive: Receive) -> Answer:
        name_tenant(scope, [asked.tenant])
        parts, principal = await self._admitted(scope)
        scope.setdefault("state", {})["principal"] = principal  # as of FastAPI's routes: for lines
        if principal.scope == "tenant":
            raise Problem(
                "forbidden", "a tenant's token reads quotas; changing them needs a host's"
            )
        headers = scope["headers"]
        return await answer_change(parts.quotas, asked, principal.actor, headers, receive)

    async def _authz(self, scope: Scope, receive: Receive) -> Answer:
        parts, principal = await self._admitted(scope)
        status = _deny_status(scope)
        request = _gateway_request(scope)
        _may_check(principal, [request])
        try:
            decision = await parts.admission.check(request)
        except UnknownTenant as exc:
            # What the gateway passes on is what its client sees: docs/contract.md section 5.
            raise Problem("forbidden", str(exc)) from exc
        except Exception:
            name_tenant(scope, [request.tenant])
            raise
        headers = rate_limit_headers(decision)
        if decision.allowed:
            return Answer(200, "application/json", b"", headers.items())
        if decision.reason == "tenant-suspended":
            raise Problem("forbidden", f"tenant {decision.tenant!r} is suspended")
        document = denial_problem(decision, upgrade=upgrade(parts.policy.current, decision))
        document["status"] = status
        return Answer(status, CONTENT_TYPE, _encoder.encode(document), headers.items())

    async def _admitted(self, scope: Scope) -> tuple[HotParts, Principal]:
        parts = self._parts
        if parts is None:
            raise Problem("unavailable", "the sidecar is starting")
        token = presented_token(scope["headers"])
        principal = parts.authenticator.known(token) if token is not None else None
        if principal is None:
            principal = await parts.authenticator.authenticate(token)
        return parts, principal


def _may_check(principal: Principal, requests: Iterable[CheckRequest]) -> None:
    """A tenant's own token may look at its own limits, and spend nothing."""
    if principal.scope == "tenant" and not all(
        request.tenant == principal.tenant and request.dry_run for request in requests
    ):
        raise Problem(
            "forbidden", "a tenant's token may only look (dry_run) at that tenant's own limits"
        )


def _deny_status(scope: Scope) -> int:
    asked = parse_qs(scope["query_string"].decode("latin-1"), keep_blank_values=True).get("deny")
    if asked is None:
        return 429
    if len(asked) == 1 and re.fullmatch("4[0-9]{2}", asked[0]):
        return int(asked[0])
    if scope["path"] != AUTHZ:
        return 429  # below it the query may be the client's own, as Envoy passes it on
    raise invalid("deny", "expected one status from 400 to 499")


def _gateway_request(scope: Scope) -> CheckRequest:
    wanted = {b"x-tenant-id": "", b"x-limit": "requests", b"x-cost": "1"}
    given: dict[bytes, str] = {}
    for name, value in scope["headers"]:
        if name in wanted:
            text = value.decode("latin-1").strip()
            if given.setdefault(name, text) != text:
                header = name.decode().title()
                raise invalid(header, "expected once; came twice with different values")
    tenant = given.get(b"x-tenant-id")
    if not tenant:
        # What a client without a tenant sees: docs/contract.md section 5.
        raise Problem("invalid-request", "expected the tenant's id in X-Tenant-ID", status=400)
    cost = given.get(b"x-cost", "1")
    if not (re.fullmatch("[1-9][0-9]{0,15}", cost) and int(cost) <= MAX_AMOUNT):
        raise invalid("X-Cost", f"expected a whole number from 1 to {MAX_AMOUNT}")
    return CheckRequest(tenant=tenant, limit=given.get(b"x-limit") or "requests", cost=int(cost))
