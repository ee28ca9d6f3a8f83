"""PartywallMiddleware: pure ASGI, in front of any app."""

import inspect
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from time import perf_counter_ns
from typing import Any, NamedTuple, get_args

from partywall import responses
from partywall.account import Answer, Settled
from partywall.client import Partywall
from partywall.context import enter, leave
from partywall.decision import Decision, HeaderFamily
from partywall.errors import (
    ConfigurationError,
    Denied,
    FeatureMissing,
    InvalidCredentials,
    KeysUnavailable,
    LimitExceeded,
    QueueFull,
    QuotaExceeded,
    SidecarError,
    SidecarUnavailable,
    TenantConflict,
    TenantRefused,
)
from partywall.governed import SCOPE_KEY, Governed
from partywall.outage import OnOutage
from partywall.quotas.denial import over_quota
from partywall.responses import ASGIApp, Denial, Message, Receive, Rendered, Scope, Send
from partywall.rules import CostOf, LimitOf, Routes, Rule
from partywall.tenants import (
    Chain,
    FromDomain,
    FromPath,
    Resolver,
    awaited,
    chain,
    is_tenant_id,
)
from partywall.usage import Usage

Shaped = Denial | ASGIApp | None
OnDenial = Callable[[Scope, Denial], Shaped | Awaitable[Shaped]]

_NOT_NOW = "Whether this request may go on cannot be decided now."


class _Kept(NamedTuple):
    """A held denial as bytes; another middleware of the same client may want other headers."""

    family: HeaderFamily
    rendered: Rendered


class PartywallMiddleware:
    """Admits or denies each request of each tenant, and runs the app in the tenant's context.

    HTTP requests and WebSocket connects are governed; everything else passes.

    Args:
        app: the ASGI app behind it.
        tenant: a resolver (`partywall.tenants`), a list of them, or a callable of the ASGI scope
            that returns the tenant's id or None, awaitable or not.
        sidecar: its URL, `http://…` or `unix:///…`; left out, PARTYWALL_SIDECAR_URL.
        token: of the scope `host`; left out, PARTYWALL_TOKEN.
        limit: which limit requests are charged to, or a callable of the scope.
        cost: what a request costs, or a callable of the scope.
        rules: other limits and costs for some routes; the first that matches applies.
        exempt: paths that are not governed, `*` for any characters; the app sees no tenant there.
        headers: which families of rate-limit headers responses carry.
        on_outage: what decides while no sidecar does: `local`, `open` or `closed`.
        enforce: False observes only: nothing is denied, headers are set all the same.
        on_denial: shapes denials: called with the scope and the `Denial`, it returns a changed
            denial, an ASGI app that answers in its place, or None to leave it; awaitable or not.
        deadline: seconds the sidecar has for an answer.
        client: a `Partywall` to share in place of `sidecar`, `token`, `on_outage` and `deadline`;
            it stays the caller's to close.

    `limit`, `cost`, `rules`, `exempt` and `on_denial` see the scope as the app does: below the
    prefix that a `FromPath(strip=True)` takes away.

    Raises:
        ConfigurationError: for an argument that cannot be, with what was expected.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tenant: Resolver | Sequence[Resolver],
        sidecar: str | None = None,
        token: str | None = None,
        limit: LimitOf = "requests",
        cost: CostOf = 1,
        rules: Iterable[Rule] = (),
        exempt: Iterable[str] = (),
        headers: HeaderFamily = "both",
        on_outage: OnOutage = "local",
        enforce: bool = True,
        on_denial: OnDenial | None = None,
        deadline: float = 0.25,
        client: Partywall | None = None,
    ) -> None:
        if headers not in get_args(HeaderFamily):
            raise ConfigurationError(
                f"expected headers to be one of {', '.join(get_args(HeaderFamily))}; "
                f"got {headers!r}"
            )
        if client is not None and (sidecar is not None or token is not None):
            raise ConfigurationError("expected either client, or sidecar and token; got both")
        if on_denial is not None and not callable(on_denial):
            raise ConfigurationError(f"expected on_denial to be callable; got {on_denial!r}")
        resolvers = list(_each(tenant))
        self.app = app
        self._routes = Routes(rules, exempt, limit, cost)
        several = chain(resolvers)
        self._resolve: Resolver = resolvers[0] if len(resolvers) == 1 else several
        self._owns_client = client is None
        self._client = client or Partywall(sidecar, token, on_outage=on_outage, deadline=deadline)
        self._headers = headers
        self._enforce = enforce
        self._on_denial = on_denial
        self._strip = next(
            (one for one in resolvers if isinstance(one, FromPath) and one.strip), None
        )
        for one in resolvers:
            if isinstance(one, FromDomain):
                one.use(self._client.tenant_of_domain)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point.

        In one piece down to the app, since each coroutine in between costs every request.
        """
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            closing = kind == "lifespan" and self._owns_client
            await self.app(scope, receive, self._closing(send) if closing else send)
            return
        inner = scope if self._strip is None else _stripped(self._strip, scope)
        asked = self._routes.always or self._routes.of(inner)
        if asked is None:
            await self.app(inner, receive, send)
            return
        try:
            tenant = self._resolve(scope)
            if tenant is not None and not isinstance(tenant, str):
                tenant = await awaited(self._resolve, tenant)
        except (Denied, KeysUnavailable, SidecarError) as exc:
            denial = _denial_of(exc, self._headers)
            if denial is None:
                raise
            await self._refuse(denial, inner, receive, send)
            return
        if tenant is None:
            await self._refuse(responses.no_tenant(), inner, receive, send)
            return
        limit, cost = asked
        permits = self._client.permits
        answer: Answer | None = permits.take(tenant, limit, cost)
        if answer is None:
            # Nothing is ever in hand for what can be no tenant's id.
            if not is_tenant_id(tenant):
                await self._refuse(responses.no_tenant(), inner, receive, send)
                return
            answer = await permits.ask(tenant, limit, cost)
        tally = answer.tally
        if type(answer) is Settled and _is_denial(answer.decision):
            if self._enforce:
                await self._deny_answer(answer, permits.usage, inner, receive, send)
                return
            tally.spare()
        governed = inner[SCOPE_KEY] = Governed(
            self._client, answer, self._headers, self._enforce, send
        )
        token = enter((answer.tenant, inner["headers"]))
        began = perf_counter_ns()
        try:
            await self.app(inner, receive, governed.send)
            if governed.denial is not None:
                await governed.release()
        except Exception as exc:
            governed.status = governed.status or 500  # as servers answer, unless we do
            # Raised by the app itself or a dependency of it (`partywall.fastapi`).
            raised = isinstance(exc, Denied | SidecarUnavailable) and not governed.started
            denial = _denial_of(exc, self._headers) if raised else None
            if denial is None:
                raise
            await self._deny(governed.completed(denial), inner, receive, governed.pass_on)
        finally:
            if kind == "http":
                tally.in_flight += perf_counter_ns() - began
                status = governed.status
                if 200 <= status < 300:  # mostly, and then without a call
                    tally.answered_2xx += 1
                else:
                    tally.answered(status)
                if not tally.noted:
                    permits.usage.note(tally)
            leave(token)
            # The server holds the scope by what it sends with: a cycle, one of them a request.
            inner.pop(SCOPE_KEY, None)

    async def _refuse(self, denial: Denial, scope: Scope, receive: Receive, send: Send) -> None:
        """Denies a request without a tenant; where nothing is enforced, the app sees none."""
        if self._enforce:
            await self._deny(denial, scope, receive, send)
        else:
            scope[SCOPE_KEY] = None
            await self.app(scope, receive, send)

    def _deny_answer(
        self, answer: Settled, usage: Usage, scope: Scope, receive: Receive, send: Send
    ) -> Awaitable[None]:
        """Denies by a decision; a held one is rendered once."""
        if self._on_denial is not None:
            return self._deny_shaped(answer, usage, scope, receive, send)
        kept = answer.rendered
        if type(kept) is not _Kept or kept.family != self._headers:
            rendered = Rendered(_denial_by(answer, self._headers))
            kept = answer.rendered = _Kept(self._headers, rendered)
        if scope["type"] == "http":
            # Noted already: the answer was counted just now, and nobody was waited for since.
            answer.tally.answered(kept.rendered.status)
        return kept.rendered(scope, receive, send)

    async def _deny_shaped(
        self, answer: Settled, usage: Usage, scope: Scope, receive: Receive, send: Send
    ) -> None:
        governed = Governed(self._client, answer, self._headers, self._enforce, send)
        try:
            await self._deny(_denial_by(answer, self._headers), scope, receive, governed.pass_on)
        finally:
            if scope["type"] == "http":
                usage.answered(answer.tally, governed.status)

    async def _deny(self, denial: Denial, scope: Scope, receive: Receive, send: Send) -> None:
        answer: ASGIApp = Rendered(denial)
        if self._on_denial is not None:
            shaped = self._on_denial(scope, denial)
            if inspect.isawaitable(shaped):
                shaped = await shaped
            if isinstance(shaped, Denial):
                answer = Rendered(shaped)
            elif callable(shaped):
                answer = shaped
            elif shaped is not None:
                raise ConfigurationError(
                    f"expected on_denial to return a Denial, an ASGI app or None; got {shaped!r}"
                )
        await answer(scope, receive, send)

    def _closing(self, send: Send) -> Send:
        """Gives back unspent permits when the app has shut down."""

        async def closing(message: Message) -> None:
            try:
                if message["type"] in ("lifespan.shutdown.complete", "lifespan.shutdown.failed"):
                    await self._client.aclose()
            finally:  # a server waits for this message
                await send(message)

        return closing


def _each(tenant: Any) -> Iterator[Resolver]:  # noqa: ANN401 - whatever the caller gave
    """The resolvers that were given, those inside a chain too."""
    if isinstance(tenant, Chain):
        yield from tenant.resolvers
    elif callable(tenant):
        yield tenant
    elif isinstance(tenant, str) or not isinstance(tenant, Iterable):
        raise ConfigurationError(
            "expected tenant to be a resolver such as FromHeader('X-Tenant-ID'), or a list of them;"
            f" got {tenant!r}"
        )
    else:
        for one in tenant:
            yield from _each(one)


def _stripped(strip: FromPath, scope: Scope) -> Scope:
    """The scope as the app sees it, whether or not the request gets there."""
    named = strip(scope)
    return scope if named is None else strip.stripped(scope, named)


def _is_denial(decision: Decision) -> bool:
    """Where no tier names the limit nothing says how much is too much (the permits logged it)."""
    return not decision.allowed and decision.reason != "unknown-limit"


def _denial_by(answer: Settled, family: HeaderFamily) -> Denial:
    decision = answer.decision
    if decision.reason == "limit-exceeded":
        return responses.over_limit(decision, answer.upgrade, family)
    if decision.reason in ("tenant-suspended", "unknown-tenant"):
        return responses.refused_tenant(decision.tenant, decision.reason)
    return responses.unavailable(_NOT_NOW)


def _denial_of(exc: Exception, family: HeaderFamily) -> Denial | None:
    match exc:
        case LimitExceeded():
            return responses.over_limit(exc.decision, exc.upgrade, family)
        case QuotaExceeded():
            return over_quota(exc)
        case QueueFull():
            return responses.full_queue(str(exc), exc.retry_after)
        case FeatureMissing():
            return responses.missing_feature(exc.tier, exc.feature, exc.upgrade)
        case TenantRefused():
            return responses.refused_tenant(exc.tenant, exc.reason)
        case TenantConflict():
            return responses.conflicting_tenants(str(exc))
        case InvalidCredentials():
            return responses.invalid_credentials(str(exc))
        case SidecarUnavailable():
            return responses.unavailable(_NOT_NOW, exc.retry_after)
        case SidecarError() | KeysUnavailable():
            return responses.unavailable(_NOT_NOW)
    return None
