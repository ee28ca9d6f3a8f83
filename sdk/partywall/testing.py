"""A fake sidecar for host apps' own tests: no server, no Redis, and a clock of its own.

    with FakeSidecar(tiers={"free": {"limits": {"requests": "3/minute"}}}) as sidecar:
        ...                     # every Partywall client and middleware of the process talks to it
        sidecar.advance(60)     # a minute later

The real sidecar and this one are held together by a test that runs one body against both.
"""

import threading
import tomllib
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
import msgspec

from partywall._fake.api import answer
from partywall._fake.core import Core, SeenCheck, TenantPut
from partywall._fake.functions import Functions
from partywall._fake.policy import (
    SHIPPED_RESOURCES,
    SHIPPED_TIERS,
    Resources,
    Tiers,
    read_policy,
)
from partywall._fake.queue import SeenJob
from partywall._fake.refused import Refused
from partywall._fake.runner import MAX_TRIES, Runner
from partywall._fake.windows import MICROSECONDS
from partywall.errors import ConfigurationError
from partywall.records import Status, TenantRecord
from partywall.transport import substitute, substituted

__all__ = ["FakeSidecar", "SeenCheck", "SeenJob"]


class FakeSidecar:
    """Decides as a sidecar does, from this process's memory.

    While its `with` (or `async with`) lasts, every client and middleware of the process talks to it
    instead of its own sidecar, whatever URL it names, and without a token; on any event loop, from
    any thread. Its windows are exact, and nothing is leased ahead or held, so `advance()`, a
    changed tier or a suspension is felt by the next check.

    Args:
        tiers: as in quotas.toml: by tier, `limits` (a rate, a list of rates, "unlimited", or a
            table with `rate` and `enforce`), `quotas` (an amount, a size, "unlimited", or a table
            with `limit` and `per`), `features`, `extends`, and of `jobs` `max_queued`; what else
            stands there is ignored. Left out, those of the quotas.toml that Partywall ships.
        default_tier: of tenants that were not registered; None refuses them.
        resources: as in quotas.toml: by resource, `durable` and `thresholds`.

    Attributes:
        checks: what was asked so far, oldest first, dry runs left out: `(tenant, limit, cost,
            allowed)` of each. Checks of one tenant and limit that wait at the same moment reach a
            sidecar together, and are one entry: with their whole cost where all were admitted.

    Raises:
        ConfigurationError: the policy cannot be; the message names what.
    """

    def __init__(
        self,
        tiers: Tiers = SHIPPED_TIERS,
        *,
        default_tier: str | None = "free",
        resources: Resources | None = None,
    ) -> None:
        if resources is None:
            resources = SHIPPED_RESOURCES if tiers is SHIPPED_TIERS else {}
        self._core = Core(read_policy(tiers, default_tier, resources))
        self._lock = threading.Lock()
        self._line = _Line(self._core, self._lock)
        self._substitution: AbstractContextManager[None] | None = None
        self.checks = self._core.checks

    @classmethod
    def from_toml(cls, path: str | Path) -> Self:
        """One with the tiers of your own quotas.toml.

        Raises:
            ConfigurationError: it cannot be read, or a limit, a quota or a feature in it is wrong.
        """
        try:
            document = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as exc:
            raise ConfigurationError(f"{path}: expected a policy in TOML: {exc}") from exc
        return cls(
            document.get("tiers", {}),
            default_tier=document.get("default_tier"),
            resources=document.get("resources", {}),
        )

    @property
    def now(self) -> float:
        """Its time, in seconds since the epoch; it begins with the year 2030."""
        with self._lock:
            return self._core.now / MICROSECONDS

    def advance(self, seconds: float) -> None:
        """Lets time pass.

        Raises:
            ConfigurationError: it would go backwards.
        """
        if not seconds >= 0:
            raise ConfigurationError(f"expected seconds, 0 or more; got {seconds!r}")
        with self._lock:
            self._core.now += round(seconds * MICROSECONDS)

    def tenant(
        self,
        tenant: str,
        *,
        tier: str | None = None,
        name: str | None = None,
        status: Status | None = None,
        domains: Sequence[str] | None = None,
    ) -> TenantRecord:
        """Registers a tenant, or changes it. What is None is kept as it is.

        Args:
            tenant: its id.
            tier: its tier; a new tenant's is the default tier.
            name: for people; a new tenant's is its id.
            status: `provisioning`, `active` or `suspended`; a new tenant is active.
            domains: all of its host names.

        Raises:
            ConfigurationError: something of it cannot be.
        """
        with self._lock:
            known = self._core.tenants.get(tenant)
            tier = tier or (known.tier if known else self._core.policy.default_tier)
            if tier is None:
                raise ConfigurationError(f"expected a tier for {tenant!r}: there is no default")
            change = {
                "tier": tier,
                "name": name,
                "status": status,
                "domains": None if domains is None else list(domains),
            }
            try:
                return self._core.put_tenant(tenant, msgspec.convert(change, TenantPut))[0]
            except (Refused, msgspec.ValidationError) as exc:
                raise ConfigurationError(str(exc)) from exc

    def suspend(self, tenant: str) -> None:
        """Suspends a tenant; `tenant(…, status="active")` lets it on again."""
        self.tenant(tenant, status="suspended")

    def deny(self, tenant: str, limit: str = "requests", *, seconds: float = 60.0) -> None:
        """Denies whatever a tenant asks of a limit, for so many seconds of this clock.

        Raises:
            ConfigurationError: no tier names the limit, or the time is none.
        """
        known = next(iter(self._core.policy.tiers.values())).limits
        if limit not in known:
            raise ConfigurationError(f"expected one of {', '.join(known)}; got {limit!r}")
        if not seconds > 0:
            raise ConfigurationError(f"expected seconds, above 0; got {seconds!r}")
        with self._lock:
            self._core.deny(tenant, limit, seconds)

    def usage(self, tenant: str) -> dict[str, int | float]:
        """What clients and middlewares reported of a tenant so far, by meter.

        They report within a second of real time, and when they are closed: close the client, or
        shut the app down, before you look. What is sent to `/v1/check` is not in it.

        Returns:
            `limits.<name>.admitted`, `.denied`, `.would_deny` and `.degraded`, `requests.2xx` to
            `.5xx`, and `requests.in_flight_seconds`; of these, those above 0.
        """
        with self._lock:
            return {
                meter: value / MICROSECONDS if meter.endswith("_seconds") else value
                for meter, value in self._core.usage.get(tenant, Counter()).items()
            }

    def jobs(self, tenant: str | None = None) -> list[SeenJob]:
        """The jobs there are, with what they were enqueued with, each tenant's oldest first.

        Args:
            tenant: whose; None for everybody's.
        """
        with self._lock:
            tenants = list(self._core.queues) if tenant is None else [tenant]
            return [job for one in tenants for job in self._core.queue(one).jobs()]

    async def run_jobs(
        self,
        functions: Functions,
        *,
        tenant: str | None = None,
        ctx: Mapping[str, Any] | None = None,
        max_tries: int = MAX_TRIES,
    ) -> list[SeenJob]:
        """Runs the jobs that are due, and those that they enqueue, one after another.

        Each in its tenant's context, tenants in turns, and none twice at a time. One that fails is
        due again after 1, 2, 4 … seconds of this clock, so `advance` and run again. What `@job`
        declares counts (`name`, `max_tries`, `backoff`, `quota`), timeouts and costs do not.
        `asyncio.run(sidecar.run_jobs(…))` where there is no event loop.

        Args:
            functions: the jobs' coroutine functions, as a worker's settings list them; or a
                mapping of them by name. A job whose function is not there dies.
            tenant: whose jobs; None for everybody's.
            ctx: what else is in `ctx` beside `job_id`, `job_try`, `enqueue_time`, `score`,
                `tenant`, and a `redis` that can `enqueue_job`: what the worker's `on_startup` would
                have put there.
            max_tries: of a job whose function does not say.

        Returns:
            The job as each try left it, in their order.

        Raises:
            ConfigurationError: one of the functions is none.
        """
        runner = Runner(
            self._core,
            self._lock,
            functions,
            tenant=tenant,
            ctx=ctx or {},
            max_tries=max_tries,
        )
        return await runner.run()

    def fail(self) -> None:
        """Begins an outage: nobody answers, and `on_outage` decides."""
        self._line.broken = True

    def restore(self) -> None:
        """Ends the outage, for the very next check.

        Clients wait a moment of real time before they try a sidecar again that did not answer. They
        are given a new line, with which they begin anew.
        """
        broken, self._line.broken = self._line.broken, False
        if broken and substituted() is self._line:
            self.__exit__(None, None, None)
            self._line = _Line(self._core, self._lock)
            self.__enter__()

    def __enter__(self) -> Self:
        if self._substitution is not None:
            raise ConfigurationError("this FakeSidecar is in use already: make another one")
        self._substitution = substitute(self._line)
        self._substitution.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        substitution, self._substitution = self._substitution, None
        if substitution is not None:
            substitution.__exit__(None, None, None)

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.__exit__(kind, error, trace)


class _Line(httpx.AsyncBaseTransport):
    """The way to the fake sidecar. Clients keep to one for as long as it is the process's."""

    def __init__(self, core: Core, lock: threading.Lock) -> None:
        self.broken = False
        self._core = core
        self._lock = lock

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if self.broken:
            raise httpx.ConnectError("the fake sidecar was told to fail", request=request)
        body = await request.aread()
        with self._lock:
            return answer(self._core, request, body)
