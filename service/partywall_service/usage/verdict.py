"""Who is noisy and who suffers: the arithmetic, from what tenants did in a window. Pure.

Tenants share several things at once, so a tenant is judged by the one of which it took most against
its fair share: the dominant share of Dominant Resource Fairness (Ghodsi et al., NSDI 2011, with
weights as in its section 4.3). There are three: requests (decisions of all its limits, so one that
two limits decide on counts twice), time that its requests were in flight, and time that its jobs
ran. The fair share of each is by weight among those who used it at all: nobody takes from a
neighbour what no neighbour wants.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum
from typing import Literal

Resource = Literal["requests", "in_flight", "jobs"]
Verdict = Literal["noisy", "normal", "victim"]

TIMES_FAIR = 2
"""A tenant is noisy above so many times its fair share."""

LEFT = 1 / 4
"""Or where it left the others less than this part of theirs. It says more than `TIMES_FAIR` only
between two like tenants, where twice the fair share is all there is."""

DENIED = 1 / 2
"""A tenant is noisy when more than this part of its requests was denied."""

TIMES_USUAL = 2
"""A victim's requests or jobs took, or waited, more than so many times what is usual for it."""

FEWEST_REQUESTS = 30
"""Requests below which nobody is noisy."""

SHORTEST = 10_000_000
"""Microseconds in flight, or of jobs' run time, below which nobody is noisy, and below which the
time of all together is no resource that anybody could be short of."""

FEWEST_SAMPLES = 20
"""Requests answered in the window, and in the time before it, that tell a latency."""

FEWEST_JOBS = 5
"""Jobs started in the window, and in the time before it, that tell a wait."""

LEAST_LATENCY = 5_000
"""Microseconds by which requests must take longer than usual: twice of next to nothing is that."""

LEAST_WAIT = 100_000
"""Microseconds by which jobs must wait longer than usual."""

_NAMES: Mapping[Resource, str] = {
    "requests": "requests",
    "in_flight": "time in flight",
    "jobs": "job run time",
}


@dataclass(frozen=True, slots=True)
class Pace:
    """How long what a tenant asked for took, added up; times in microseconds.

    Attributes:
        answered: requests that the app answered.
        in_flight: time that they took.
        started: jobs started.
        wait: time that they had waited since they were due.
    """

    answered: int = 0
    in_flight: int = 0
    started: int = 0
    wait: int = 0

    @property
    def latency(self) -> float | None:
        """Microseconds a request; None where too few tell."""
        return self.in_flight / self.answered if self.answered >= FEWEST_SAMPLES else None

    @property
    def job_wait(self) -> float | None:
        """Microseconds that a job waited; None where too few tell."""
        return self.wait / self.started if self.started >= FEWEST_JOBS else None


UNKNOWN = Pace()
"""Of a tenant that nothing is known of: nothing is usual for it."""


@dataclass(frozen=True, slots=True)
class Activity:
    """What a tenant did in the window; times in microseconds.

    Attributes:
        tenant: its id.
        tier: its tier's name.
        weight: its tier's, above 0.
        requests: decisions of all its limits: admitted, denied, or observed only.
        denied: those of them that were denied.
        shed: those of the denied that were refused for want of capacity, as far as that is sure.
        run: time that its jobs ran.
        pace: how long what it asked for took.
    """

    tenant: str
    tier: str
    weight: float = 1
    requests: int = 0
    denied: int = 0
    shed: int = 0
    run: int = 0
    pace: Pace = UNKNOWN

    def used(self, resource: Resource) -> int:
        """How much of a resource."""
        if resource == "requests":
            return self.requests
        return self.pace.in_flight if resource == "in_flight" else self.run

    def is_active(self, resource: Resource) -> bool:
        """Whether it wanted any of a resource; jobs that still run have not told how long."""
        return self.used(resource) > 0 or (resource == "jobs" and self.pace.started > 0)


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A tenant with its verdict.

    Attributes:
        tenant: its id.
        tier: its tier's name.
        requests: decisions of all its limits.
        denied: those that were denied.
        in_flight_us: microseconds that its requests were in flight.
        job_run_us: microseconds that its jobs ran.
        share: of the resource that it was judged by, from 0 to 1.
        fair_share: of the same, by weight among those active in it.
        resource: that resource.
        verdict: `noisy`, `normal` or `victim`.
        reason: why, in one sentence.
        requests_share: of all requests.
        in_flight_share: of all time in flight.
        jobs_share: of all jobs' run time.
    """

    tenant: str
    tier: str
    requests: int
    denied: int
    in_flight_us: int
    job_run_us: int
    share: float
    fair_share: float
    resource: Resource
    verdict: Verdict
    reason: str
    requests_share: float
    in_flight_share: float
    jobs_share: float


@dataclass(frozen=True, slots=True)
class _Pool:
    """One resource: what all took of it, and the weight and number of those who did."""

    resource: Resource
    total: int
    weight: float
    active: int

    def share(self, one: Activity) -> float:
        return one.used(self.resource) / self.total if self.total else 0.0

    def fair(self, one: Activity) -> float:
        return one.weight / self.weight if one.is_active(self.resource) else 0.0

    @property
    def counts(self) -> bool:
        """Whether there was enough of it for anybody to be short of."""
        return self.resource == "requests" or self.total >= SHORTEST

    def is_over(self, one: Activity) -> bool:
        """Whether the tenant took too much of it."""
        floor = FEWEST_REQUESTS if self.resource == "requests" else SHORTEST
        if self.active < 2 or one.used(self.resource) < floor:
            return False
        share, fair = self.share(one), self.fair(one)
        return share > TIMES_FAIR * fair or (fair <= 1 / 2 and 1 - share < LEFT * (1 - fair))


def judge(activities: Iterable[Activity], usual: Mapping[str, Pace]) -> list[Neighbour]:
    """Each tenant that was active in the window, the largest share first.

    Args:
        activities: no tenant twice.
        usual: of tenants, what was so in the time before the window.
    """
    active = [one for one in activities if any(one.is_active(name) for name in _NAMES)]
    pools = [_pool(name, active) for name in _NAMES]
    found = [_judged(one, usual.get(one.tenant, UNKNOWN), pools) for one in active]
    return sorted(found, key=lambda one: (-one.share, -one.requests, one.tenant))


def _pool(resource: Resource, activities: Sequence[Activity]) -> _Pool:
    active = [one for one in activities if one.is_active(resource)]
    return _Pool(
        resource,
        total=sum(one.used(resource) for one in active),
        weight=fsum(one.weight for one in active),
        active=len(active),
    )


def _judged(one: Activity, usual: Pace, pools: Sequence[_Pool]) -> Neighbour:
    pool, verdict, reason = _verdict(one, usual, pools)
    shares = [each.share(one) for each in pools]
    return Neighbour(
        tenant=one.tenant,
        tier=one.tier,
        requests=one.requests,
        denied=one.denied,
        in_flight_us=one.pace.in_flight,
        job_run_us=one.run,
        share=pool.share(one),
        fair_share=pool.fair(one),
        resource=pool.resource,
        verdict=verdict,
        reason=reason,
        requests_share=shares[0],
        in_flight_share=shares[1],
        jobs_share=shares[2],
    )


def _verdict(one: Activity, usual: Pace, pools: Sequence[_Pool]) -> tuple[_Pool, Verdict, str]:
    """The resource it is judged by, the verdict and the reason.

    Who took too much is noisy, whatever befell it. What was refused for want of capacity is not
    the tenant's doing, and so counts for a verdict of noisy only where it cannot make a victim.
    """
    requests = pools[0]
    dominant = _dominant(one, pools)
    if dominant.counts and dominant.is_over(one):
        return dominant, "noisy", _too_much(one, dominant)
    if _mostly(one.denied - one.shed, one.requests):
        return requests, "noisy", _denied(one)
    for pool, why in _suffering(one, usual, pools):
        return pool, "victim", f"It took {_took(one, pool)}, while {why}."
    if _mostly(one.denied, one.requests):
        return requests, "noisy", _denied(one)
    if dominant.active < 2:
        return dominant, "normal", f"Nobody else had any {_NAMES[dominant.resource]}."
    fair = _percent(dominant.fair(one))
    return dominant, "normal", f"It took {_part(one, dominant)}; its fair share is {fair}."


def _dominant(one: Activity, pools: Sequence[_Pool]) -> _Pool:
    """The resource of which it took most against its fair share, of those that count if any do.

    One that it took too much of comes before one that it took even more of, but may.
    """
    wanted = [pool for pool in pools if one.is_active(pool.resource)]
    counting = [pool for pool in wanted if pool.counts] or wanted
    return max(counting, key=lambda pool: (pool.is_over(one), pool.share(one) / pool.fair(one)))


def _suffering(one: Activity, usual: Pace, pools: Sequence[_Pool]) -> Iterable[tuple[_Pool, str]]:
    """What befell it, each with the resource of which it took less than its fair share.

    For what it asked, not for how long that took: a slow request is in flight for longer.
    """
    requests, _, jobs = pools
    if requests.share(one) < requests.fair(one):
        if one.shed:
            yield requests, f"{one.shed:,} of its requests were refused for want of capacity"
        if _rose(one.pace.latency, usual.latency, LEAST_LATENCY):
            yield requests, _slower("its requests took", one.pace.latency, usual.latency)
    if jobs.share(one) < jobs.fair(one) and _rose(one.pace.job_wait, usual.job_wait, LEAST_WAIT):
        yield jobs, _slower("its jobs waited", one.pace.job_wait, usual.job_wait)


def _rose(now: float | None, usual: float | None, least: int) -> bool:
    if now is None or usual is None:
        return False
    return now > TIMES_USUAL * usual and now - usual >= least


def _mostly(some: int, of: int) -> bool:
    return of >= FEWEST_REQUESTS and some > DENIED * of


def _too_much(one: Activity, pool: _Pool) -> str:
    share, fair = pool.share(one), pool.fair(one)
    if share > TIMES_FAIR * fair:
        return (
            f"It took {_part(one, pool)}, more than twice its fair share of {_percent(fair)} "
            f"among {pool.active:,} tenants."
        )
    return (
        f"It took {_part(one, pool)} and left the others less than a quarter of their fair share "
        f"of {_percent(1 - fair)}."
    )


def _denied(one: Activity) -> str:
    return f"{one.denied:,} of its {one.requests:,} requests were denied, more than half."


def _took(one: Activity, pool: _Pool) -> str:
    return f"{_part(one, pool)}, less than its fair share of {_percent(pool.fair(one))}"


def _part(one: Activity, pool: _Pool) -> str:
    return f"{_percent(pool.share(one))} of all {_NAMES[pool.resource]}"


def _slower(what: str, now: float | None, usual: float | None) -> str:
    return f"{what} {_lasting(now)} each, more than twice the usual {_lasting(usual)}"


def _percent(part: float) -> str:
    # Of thousands of tenants a fair share is less than a tenth of a percent.
    return f"{100 * part:.1f}%" if part >= 0.001 or part <= 0 else f"{100 * part:.1g}%"


def _lasting(microseconds: float | None) -> str:
    seconds = (microseconds or 0) / 1_000_000
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1000 * seconds:.1f} ms"
