"""What a process has counted of each tenant, and how the sidecar learns of it.

Decisions that this process makes from permits in hand, and the requests that it serves, no sidecar
sees. They are counted here as plain attributes, and reported as increments, once a second while
there is something. A report is sent unchanged until it is answered, and only then the next one is
made, so each is applied once however often it was sent.
"""

import asyncio
import functools
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextvars import Context
from typing import NamedTuple

import msgspec

from partywall.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    SidecarError,
    Unauthenticated,
)
from partywall.protocol import MAX_ITEMS, TenantUsage, UsageAnswer, UsageReport

REPORT_SECONDS = 1.0
"""What was counted is reported so long after, and so often what could not be is tried again."""

SEND_SECONDS = 2.0
"""What one report may take, and so the whole of what is left when the client closes."""

ABSENT_SECONDS = 60.0
"""A sidecar that knows no reports is of an earlier version: it is asked again after so long."""

MAX_METERS = 10_000
"""Of one report, with its first tenant's at least: a request of a megabyte, when names are long."""

MAX_NOTED = 256
"""Tallies that wait to be gathered: a millisecond's work at most, for requests wait meanwhile."""

MAX_PENDING = 20_000
"""Tenants whose usage is kept until it can be reported, besides the report under way."""

Report = Callable[[UsageReport], Awaitable[UsageAnswer]]

log = logging.getLogger("partywall")


class Counts(NamedTuple):
    """Checks answered in this process since its start, by outcome; `degraded` counts in both."""

    admitted: int
    denied: int
    degraded: int


class Tally(msgspec.Struct, eq=False, gc=False):
    """What was counted of one tenant's one limit since it was last gathered.

    Its attributes are counted up where a request passes. Who does so has `Usage.note` told of it,
    unless it is `noted` already.

    Attributes:
        tenant: whose; None when no tier is known to apply to it: nothing is reported.
        limit: the limit; None when no tier names it: of it nothing is reported.
        noted: whether it waits to be gathered.
        admitted, denied: decisions, those below left out.
        observed: admitted only because the limit is not enforced.
        spared: denied, and let pass by an app that does not enforce.
        degraded: decisions of any of these kinds, made without the shared store.
        in_flight: nanoseconds that HTTP requests spent in the app.
        answered_2xx, answered_3xx, answered_4xx, answered_5xx: HTTP requests, by status.
    """

    tenant: str | None
    limit: str | None
    noted: bool = False
    admitted: int = 0
    denied: int = 0
    observed: int = 0
    spared: int = 0
    degraded: int = 0
    in_flight: int = 0
    answered_2xx: int = 0
    answered_3xx: int = 0
    answered_4xx: int = 0
    answered_5xx: int = 0

    def spare(self) -> None:
        """Notes of a denial just counted that its request went on all the same."""
        self.denied -= 1
        self.spared += 1

    def answered(self, status: int) -> None:
        """Counts an HTTP response; 0, or what is no final status, is none."""
        if status < 200:
            return
        if status < 300:
            self.answered_2xx += 1
        elif status < 400:
            self.answered_3xx += 1
        elif status < 500:
            self.answered_4xx += 1
        else:
            self.answered_5xx += 1

    def rises(self) -> Iterator[tuple[str, int]]:
        """What to report, by meter; what is left of a microsecond waits for more."""
        if self.limit is not None:
            admitted, denied, would_deny, degraded = _meters(self.limit)
            yield admitted, self.admitted
            yield denied, self.denied
            yield would_deny, self.observed + self.spared
            yield degraded, self.degraded
        yield "requests.in_flight_seconds", self.in_flight // 1000
        yield "requests.2xx", self.answered_2xx
        yield "requests.3xx", self.answered_3xx
        yield "requests.4xx", self.answered_4xx
        yield "requests.5xx", self.answered_5xx

    def clear(self) -> None:
        """Begins anew."""
        self.noted = False
        self.admitted = self.denied = self.observed = self.spared = self.degraded = 0
        self.in_flight %= 1000
        self.answered_2xx = self.answered_3xx = self.answered_4xx = self.answered_5xx = 0


class _Unanswered(NamedTuple):
    """A report under way; `since` is when the oldest count in it was made, or before."""

    sequence: int
    since: float
    usage: list[TenantUsage]


class Usage:
    """Gathers and reports what one event loop's permits and middlewares count.

    Memory is bounded: of at most `MAX_PENDING` tenants counts are kept for later. While the sidecar
    is away for so long that there are more, the counts of further tenants are given up, and the log
    says so and how many decisions they were; what is reported is then too low, and never too high.

    Args:
        report: sends a report; raises `SidecarError` when there is no answer. None: nothing is
            reported, only counted.
        instance: this process's id for the sidecar.
        clock: seconds that never go back.
    """

    def __init__(
        self,
        report: Report | None,
        *,
        instance: str,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._report = report
        self._instance = instance
        self._clock = clock
        # What is reported for all must not be so as the tenant whose request happened to begin it.
        self._context = Context()
        self._noted: list[Tally] = []
        self._noted_since = 0.0
        self._pending: dict[str, dict[str, int]] = {}
        self._pending_since = 0.0
        self._unanswered: _Unanswered | None = None
        self._sequence = 0
        self._given_up = 0
        self._gathered = Counts(0, 0, 0)
        self._timer: asyncio.TimerHandle | None = None
        self._delivery: asyncio.Task[None] | None = None
        self._pause = REPORT_SECONDS
        self._failing: str | None = None
        self._closed = False

    @property
    def counts(self) -> Counts:
        """What was answered so far."""
        counts = self._gathered
        for tally in self._noted:
            counts = _sum(counts, tally)
        return counts

    def note(self, tally: Tally) -> None:
        """Learns that something was counted. Only for a tally that is not `noted`."""
        tally.noted = True
        if not self._noted:
            self._noted_since = self._clock()
        self._noted.append(tally)
        if len(self._noted) >= MAX_NOTED:
            self._gather()
        if self._timer is None and self._delivery is None:
            if self._closed:
                self._say("closed", "usage counted after its client was closed is not reported")
            else:
                self._wait()

    def answered(self, tally: Tally, status: int) -> None:
        """Counts an HTTP response."""
        tally.answered(status)
        if not tally.noted:
            self.note(tally)

    async def aclose(self) -> None:
        """Reports what is left, within `SEND_SECONDS`; what is not answered then, the log tells."""
        self._closed = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        delivery = self._delivery
        try:
            async with asyncio.timeout(SEND_SECONDS):
                if delivery is not None:
                    await asyncio.wait([delivery])
                await self._deliver()
        except TimeoutError:
            if delivery is not None:
                delivery.cancel()
        finally:
            self._say_what_is_left()

    def _wait(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(
            self._pause, self._begin, context=self._context
        )

    def _begin(self) -> None:
        self._timer = None
        self._delivery = asyncio.get_running_loop().create_task(self._deliver())
        self._delivery.add_done_callback(self._delivered)

    def _delivered(self, task: asyncio.Task[None]) -> None:
        self._delivery = None
        if task.cancelled() or self._closed:
            return  # the loop is ending, or what is left is reported by who closes
        if self._noted or self._pending or self._unanswered:
            self._wait()

    async def _deliver(self) -> None:
        self._gather()
        while self._unanswered or self._next():
            if not await self._sent():
                return

    def _gather(self) -> None:
        """Takes what was noted until now."""
        if not self._pending:
            self._pending_since = self._noted_since
        noted, self._noted = self._noted, []
        for tally in noted:
            self._gathered = _sum(self._gathered, tally)
            self._keep(tally)
            tally.clear()

    def _keep(self, tally: Tally) -> None:
        if tally.tenant is None or self._report is None:
            return
        rises = [(meter, rise) for meter, rise in tally.rises() if rise]
        meters = self._pending.get(tally.tenant)
        if meters is None and rises:
            if len(self._pending) >= MAX_PENDING:
                if not self._given_up:
                    log.warning(
                        "usage of %d tenants waits to be reported; that of others is given up",
                        MAX_PENDING,
                    )
                self._given_up += _decisions(rises)
                return
            meters = self._pending[tally.tenant] = {}
        if meters is not None:
            for meter, rise in rises:
                meters[meter] = meters.get(meter, 0) + rise

    def _next(self) -> bool:
        """Makes the next report; whether there is something to report."""
        usage: list[TenantUsage] = []
        room = MAX_METERS
        while self._pending and len(usage) < MAX_ITEMS and room > 0:
            tenant = next(iter(self._pending))
            meters = self._pending.pop(tenant)
            room -= len(meters)
            usage.append(TenantUsage(tenant, meters))
        if usage:
            self._sequence += 1
            self._unanswered = _Unanswered(self._sequence, self._pending_since, usage)
        return bool(usage)

    async def _sent(self) -> bool:
        """Sends the report under way; whether the next one may follow at once."""
        report = self._unanswered
        if report is None or self._report is None:
            return False
        age = max(0.0, self._clock() - report.since)
        self._pause = REPORT_SECONDS
        try:
            await self._report(UsageReport(self._instance, report.sequence, age, report.usage))
        except NotFound as exc:
            self._pause = ABSENT_SECONDS
            self._say("absent", f"the sidecar knows no reports of usage yet, which is kept: {exc}")
            return False
        except (InvalidRequest, Unauthenticated, Forbidden) as exc:
            self._say(type(exc).__name__, f"the sidecar refuses usage, which is lost: {exc}")
        except SidecarError as exc:
            self._say("away", f"usage cannot be reported now, and is kept: {exc}")
            return False
        else:
            self._succeed()
        self._unanswered = None
        return True

    def _say(self, failing: str, message: str) -> None:
        if self._failing != failing:
            self._failing = failing
            log.warning(message)

    def _succeed(self) -> None:
        if self._failing is not None:
            self._failing = None
            log.warning("usage is reported again")
        if self._given_up:
            log.error("usage of %d decisions was given up meanwhile", self._given_up)
            self._given_up = 0

    def _say_what_is_left(self) -> None:
        self._gather()
        left = list(self._pending.items())
        if self._unanswered is not None:
            left += [(one.tenant, one.meters) for one in self._unanswered.usage]
        decisions = sum(_decisions(meters.items()) for _, meters in left) + self._given_up
        if left or decisions:
            log.error(
                "at closing, usage of %d tenants could not be reported: %d decisions",
                len({tenant for tenant, _ in left}),
                decisions,
            )


def _sum(counts: Counts, tally: Tally) -> Counts:
    return Counts(
        counts.admitted + tally.admitted + tally.observed,
        counts.denied + tally.denied + tally.spared,
        counts.degraded + tally.degraded,
    )


def _decisions(rises: Iterable[tuple[str, int]]) -> int:
    return sum(
        rise
        for meter, rise in rises
        if meter.startswith("limits.") and not meter.endswith(".degraded")
    )


@functools.lru_cache(maxsize=1000)
def _meters(limit: str) -> tuple[str, str, str, str]:
    """The meters of a limit's decisions: one text for all tenants that have it."""
    stem = f"limits.{limit}"
    return f"{stem}.admitted", f"{stem}.denied", f"{stem}.would_deny", f"{stem}.degraded"
