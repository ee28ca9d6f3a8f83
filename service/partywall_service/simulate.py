"""An access log through the real admission arithmetic, in the log's own time.

Servers write a line when a request ends but stamp it with when it began, so lines are a little out
of order in any real log. Admission is decided when a request begins; deciding in the file's order
would charge an early request to a later moment. So requests are decided in the order of their
times. Tenants share no window, hence each one's times are sorted and decided apart, and eight bytes
a request are all that is kept: lines of one second are alike to the arithmetic.
"""

import re
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from partywall_service.accesslog import Entry, parse_line
from partywall_service.engine.base import Check
from partywall_service.engine.memory import MemoryEngine
from partywall_service.policy.model import Limit

TenantOf = Callable[[Entry, str], str | None]
"""Which tenant a request is of, by the entry and the line it came from; None: of none."""

_STEP = 1000
"""Requests between two reports of progress."""


@dataclass(frozen=True, slots=True)
class Tally:
    """How one tenant fared."""

    tenant: str
    requests: int
    admitted: int

    @property
    def denied(self) -> int:
        """Requests that had no room."""
        return self.requests - self.admitted

    def as_dict(self) -> dict[str, Any]:
        """As docs/contract.md section 2 prints it."""
        return {
            "tenant": self.tenant,
            "requests": self.requests,
            "admitted": self.admitted,
            "denied": self.denied,
        }


@dataclass(frozen=True, slots=True)
class Report:
    """What a log would have met.

    Attributes:
        skipped_lines: those that are no request, or of no tenant; with `requests`, all lines.
        tenants: by denied, then requests, descending, then name.
        first: the earliest request, in seconds since the epoch; None when there is none.
        last: the latest.
    """

    skipped_lines: int
    tenants: tuple[Tally, ...]
    first: int | None
    last: int | None

    @property
    def requests(self) -> int:
        """Lines that were decided."""
        return sum(tally.requests for tally in self.tenants)

    @property
    def admitted(self) -> int:
        """Requests that had room."""
        return sum(tally.admitted for tally in self.tenants)

    @property
    def denied(self) -> int:
        """Requests that had none."""
        return self.requests - self.admitted

    def as_dict(self) -> dict[str, Any]:
        """As docs/contract.md section 2 prints it."""
        return {
            "requests": self.requests,
            "admitted": self.admitted,
            "denied": self.denied,
            "skipped_lines": self.skipped_lines,
            "tenants": [tally.as_dict() for tally in self.tenants],
        }


class Simulation:
    """Takes a log's lines, then decides them.

    Args:
        limit: what to decide by. An observe-only limit is decided all the same: what it would
            deny is the question.
        tenant_of: from `tenant_from`.
    """

    def __init__(self, limit: Limit, tenant_of: TenantOf) -> None:
        self._limit = limit
        self._tenant_of = tenant_of
        self._times: dict[str, array[int]] = {}
        self._skipped = 0

    @property
    def requests(self) -> int:
        """Requests taken so far."""
        return sum(map(len, self._times.values()))

    def take(self, line: str | None) -> None:
        """Takes one line, in any order; None is a line that could not be one."""
        entry = None if line is None else parse_line(line)
        tenant = None if entry is None or line is None else self._tenant_of(entry, line)
        if entry is None or not tenant:
            self._skipped += 1
            return
        times = self._times.get(tenant)
        if times is None:
            times = self._times[tenant] = array("q")
        times.append(entry.at)

    def decide(self, decided: Callable[[int], None] = lambda _: None) -> Report:
        """Decides everything taken.

        Args:
            decided: called with a number of requests whenever that many more are decided.
        """
        tallies: list[Tally] = []
        for tenant, times in self._times.items():
            tallies.append(self._decide_one(tenant, times, decided))
        tallies.sort(key=lambda tally: (-tally.denied, -tally.requests, tally.tenant))
        return Report(
            skipped_lines=self._skipped,
            tenants=tuple(tallies),
            first=min((min(times) for times in self._times.values()), default=None),
            last=max((max(times) for times in self._times.values()), default=None),
        )

    def _decide_one(
        self, tenant: str, times: Iterable[int], decided: Callable[[int], None]
    ) -> Tally:
        ordered = sorted(times)
        admitted = len(ordered)
        if self._limit.rates:  # else it is unlimited
            engine = MemoryEngine()  # of its own, so that windows are let go with their tenant
            check = Check(tenant, self._limit.name, self._limit.rates)
            admitted = 0
            for begin in range(0, len(ordered), _STEP):
                step = ordered[begin : begin + _STEP]
                admitted += sum(engine.decide_now(check, at).allowed for at in step)
                decided(len(step))
        return Tally(tenant, requests=len(ordered), admitted=admitted)


def tenant_from(spec: str) -> TenantOf:
    """How to tell a request's tenant.

    Args:
        spec: `host`, `user`, or a regular expression that is searched for in the whole line: its
            group named `tenant`, or else its only group, or else what it matched.

    Raises:
        ValueError: it is no regular expression, or its groups leave open which is the tenant.
    """
    if spec == "host":
        return lambda entry, _: entry.host
    if spec == "user":
        return lambda entry, _: entry.user
    try:
        pattern = re.compile(spec)
    except (re.error, RecursionError, OverflowError) as exc:
        raise ValueError(
            f"expected host, user or a regular expression, got {spec!r}: {exc}"
        ) from exc
    group: str | int = "tenant" if "tenant" in pattern.groupindex else min(pattern.groups, 1)
    if group != "tenant" and pattern.groups > 1:
        raise ValueError(
            f"expected one group, or one named (?P<tenant>...), got {pattern.groups} in {spec!r}"
        )

    def matched(_: Entry, line: str) -> str | None:
        match = pattern.search(line)
        return None if match is None else match[group]

    return matched
