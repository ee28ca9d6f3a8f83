"""The async client: checks, quotas, jobs and tenants."""

import asyncio
import secrets
from asyncio import get_running_loop
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Self, TypeVar, get_args
from urllib.parse import quote

import httpx
import msgspec

from partywall import address
from partywall.decision import Decision
from partywall.errors import ConfigurationError, SidecarUnavailable, UnknownLimit, UnknownTenant
from partywall.jobs.methods import JobMethods
from partywall.outage import OnOutage
from partywall.permits import Permits
from partywall.quotas.hooks import CrossingHook
from partywall.quotas.methods import QuotaMethods
from partywall.records import (
    Check,
    CheckLike,
    Status,
    TenantChange,
    TenantPage,
    TenantRecord,
    checks_of,
    valid_check,
    valid_tenant,
)
from partywall.transport import Transport, checked_token, positive, substituted

DOMAIN_LOOKUP_SECONDS = 1.0
"""A domain is looked up on a request's way, so it does not get the time of an admin's call."""

T = TypeVar("T")

_decision = msgspec.json.Decoder(Decision)
_decisions = msgspec.json.Decoder(list[Decision])
_tenant = msgspec.json.Decoder(TenantRecord)
_tenants = msgspec.json.Decoder(TenantPage)


@dataclass(frozen=True, slots=True)
class _Session:
    """What is bound to one event loop."""

    loop: asyncio.AbstractEventLoop
    substitute: httpx.AsyncBaseTransport | None
    transport: Transport
    permits: Permits

    async def aclose(self) -> None:
        await self.permits.aclose()
        await self.transport.aclose()


class Partywall(QuotaMethods, JobMethods):
    """A sidecar's client, for any number of tasks; close it, or use it in an `async with`.

    Connections and leased permits belong to an event loop; they are made at the first use on each,
    so one client may be made at import time and serve several loops, as tests have them. A closed
    client that is used again opens again.

    Args:
        sidecar: its URL, `http://`, `https://` or `unix:///path`; left out, PARTYWALL_SIDECAR_URL
            or http://127.0.0.1:8080.
        token: of scope `host`; left out, PARTYWALL_TOKEN.
        deadline: seconds that a check may wait for the sidecar before `on_outage` decides.
        timeout: seconds that any other call may take, with its retries.
        on_outage: what decides checks while no sidecar does: `local`, `open` or `closed`.
        transport: what to send with, in place of connections of its own.
        on_crossing: the first hook of `on_crossing`.

    Raises:
        ConfigurationError: an argument cannot be. What the environment lacks shows at the first
            use, or on entering the `async with`.
    """

    def __init__(
        self,
        sidecar: str | None = None,
        token: str | None = None,
        *,
        deadline: float = 0.25,
        timeout: float = 10.0,
        on_outage: OnOutage = "local",
        transport: httpx.AsyncBaseTransport | None = None,
        on_crossing: CrossingHook | None = None,
    ) -> None:
        super().__init__(on_crossing)
        if on_outage not in get_args(OnOutage):
            raise ConfigurationError(
                f"expected on_outage to be one of {', '.join(get_args(OnOutage))}; "
                f"got {on_outage!r}"
            )
        if sidecar is not None:
            address.parse(sidecar)
        if token is not None:
            checked_token(token)
        self._sidecar = sidecar
        self._token = token
        self._deadline = positive("deadline", deadline)
        self._timeout = positive("timeout", timeout)
        self._on_outage: OnOutage = on_outage
        self._given = transport
        self._latest: _Session | None = None
        self._sessions: dict[asyncio.AbstractEventLoop, _Session] = {}
        self._closing: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._session()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Gives back unspent permits, reports usage and closes the running loop's connections."""
        loop = asyncio.get_running_loop()
        self._latest = None
        session = self._sessions.pop(loop, None)
        if session is not None:
            await session.aclose()
        for task in [task for task in self._closing if task.get_loop() is loop]:
            await task

    @property
    def permits(self) -> Permits:
        """The running event loop's permits: where a check can be answered without waiting.

        Raises:
            ConfigurationError: the environment names no token, or no URL that is one.
        """
        session = self._latest
        if (
            session is None
            or session.loop is not get_running_loop()
            or session.substitute is not substituted()
        ):
            session = self._latest = self._session()
        return session.permits

    async def check(
        self, tenant: str, limit: str = "requests", *, cost: int = 1, dry_run: bool = False
    ) -> Decision:
        """Decides whether a tenant may go on; a denial is a value.

        From a permit in hand where there is one. While no sidecar answers `on_outage` decides, and
        the decision says `degraded`.

        Args:
            tenant: the tenant's id.
            limit: a limit that some tier names.
            cost: in the limit's own units, a whole number from 1.
            dry_run: only look: nothing is charged. The sidecar is always asked.

        Raises:
            UnknownTenant: nobody registered it, and the policy has no default tier.
            UnknownLimit: no tier names it.
            InvalidRequest: an argument can be none; nothing was sent.
            Unauthenticated, Forbidden: the token cannot check.
            SidecarUnavailable: nothing could decide, and `on_outage` is `closed`.
        """
        valid_check(tenant, limit, cost)
        if dry_run:
            return await self._session().transport.request(
                "POST",
                "/v1/check",
                _decision,
                body=Check(tenant, limit, cost, dry_run=True),
                idempotent=True,
            )
        permits = self.permits
        decision = await permits.decide(tenant, limit, cost)
        if decision.degraded and permits.refusal is not None:
            # A caller's mistake, and not an outage; one of its own, for each has its own traceback.
            raise type(permits.refusal)(str(permits.refusal))
        match decision.reason:
            case "unknown-tenant":
                raise UnknownTenant(f"no tenant {tenant!r} is registered")
            case "unknown-limit":
                raise UnknownLimit(f"no tier names a limit {limit!r}")
            case "unavailable":
                raise SidecarUnavailable(
                    f"limit {limit!r} of tenant {tenant!r} cannot be decided now, and it is closed "
                    "then"
                )
        return decision

    async def check_many(self, checks: Iterable[CheckLike]) -> list[Decision]:
        """Decides up to 1000 checks in one call, in order; all of them are the sidecar's.

        An unknown tenant or limit denies its own check alone, and is its `reason`.

        Args:
            checks: each a `Check`, or a tuple of tenant, limit and cost, the later ones optional.

        Raises:
            InvalidRequest: one of them can be none, or there are too many; nothing was sent.
            SidecarError: there is no answer to go by. They may have been charged nevertheless.
        """
        asked = checks_of(list(checks))
        if not asked:
            return []
        return await self._session().transport.request(
            "POST", "/v1/checks", _decisions, body=asked, idempotent=False
        )

    async def get_tenant(self, tenant: str) -> TenantRecord:
        """A registered tenant.

        Raises:
            UnknownTenant: nobody registered it, though the policy's default tier may serve it.
            SidecarError: there is no answer to go by.
        """
        return await self._session().transport.request(
            "GET", _path_of(tenant), _tenant, idempotent=True
        )

    async def put_tenant(
        self,
        tenant: str,
        *,
        tier: str,
        name: str | None = None,
        domains: Sequence[str] | None = None,
        status: Status | None = None,
    ) -> TenantRecord:
        """Registers a tenant, or changes it. What is None is kept as it is.

        Args:
            tenant: its id.
            tier: a tier of the policy.
            name: for people; a new tenant's is its id.
            domains: all of its host names; each belongs to one tenant at most.
            status: `provisioning`, `active` or `suspended`; a new tenant is active.

        Raises:
            Conflict: a domain is another tenant's.
            InvalidRequest: an argument can be none, or there is no such tier.
            SidecarError: there is no answer to go by.
        """
        change = TenantChange(tier, name, None if domains is None else list(domains), status)
        return await self._session().transport.request(
            "PUT", _path_of(tenant), _tenant, body=change, idempotent=True
        )

    async def tenant_of_domain(self, domain: str) -> str | None:
        """The id of the tenant that a host name belongs to; None when it is nobody's.

        Within a second: it is asked on a request's way.

        Raises:
            InvalidRequest: it is no host name.
            SidecarError: there is no answer to go by.
        """
        page = await self._session().transport.request(
            "GET",
            "/v1/tenants",
            _tenants,
            query={"domain": domain, "page_size": "1"},
            idempotent=True,
            timeout=DOMAIN_LOOKUP_SECONDS,
        )
        return page.tenants[0].id if page.tenants else None

    async def _request(
        self,
        method: str,
        path: str,
        answer: msgspec.json.Decoder[T],
        query: Mapping[str, str] | None,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> T:
        return await self._session().transport.request(
            method, path, answer, query=query, body=body, headers=headers, idempotent=True
        )

    async def _finish(self, awaitable: Awaitable[T]) -> T:
        return await awaitable

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    def _session(self) -> _Session:
        """The running loop's session, made where there is none for what is to be talked to."""
        loop = asyncio.get_running_loop()
        before = self._sessions.get(loop)
        if before is not None and before.substitute is substituted():
            return before
        transport = Transport(
            self._sidecar,
            self._token,
            deadline=self._deadline,
            timeout=self._timeout,
            transport=self._given,
        )
        if before is not None:
            task = loop.create_task(before.aclose())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)
        # What a closed loop leaves behind cannot be closed any more, only forgotten.
        for other in [other for other in list(self._sessions) if other.is_closed()]:
            self._sessions.pop(other, None)
        permits = Permits(
            transport.permits,
            report=transport.usage,
            # Of this loop's own: after a fork each process must count as one.
            instance=secrets.token_hex(8),
            on_outage=self._on_outage,
            deadline=self._deadline,
        )
        session = _Session(loop, substituted(), transport, permits)
        self._sessions[loop] = session
        return session


def _path_of(tenant: str) -> str:
    valid_tenant(tenant)
    return f"/v1/tenants/{quote(tenant, safe='')}"
