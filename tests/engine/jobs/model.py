"""What a queue does, in plain Python: which job of which tenant may start, and how many may.

It leaves open only whose turn it is: that is fairness, which `ledger.py` judges.
"""

from collections import Counter
from dataclasses import dataclass, field

from partywall_workers.policy import JobPolicy
from partywall_workers.scripts import Claimed
from tests.engine.jobs.check import BUCKETS, State

COST = {"work": 1, "cost2": 2, "cost3": 3, "cost7": 7, "half": 0.5}
"""Of functions, as driver.COSTS says it."""


Meter = tuple[str, int, str]
"""Tenant, minute, name."""


@dataclass
class Job:
    """A job; `ready_as` is its place among the jobs that are due: priority, then age."""

    function: str
    ready_as: tuple[int, int]
    run_at: int
    status: str = "queued"
    attempts: int = 0
    lease: int = 0
    fence: int = 0
    cancel: bool = False
    started_at: int = 0

    @property
    def waits(self) -> bool:
        return self.status in ("queued", "deferred", "retrying")


@dataclass
class Tenant:
    """A tenant, its jobs and when they started."""

    policy: JobPolicy = field(default_factory=JobPolicy)
    paused: bool = False
    jobs: dict[str, Job] = field(default_factory=dict)
    starts: dict[int, list[int]] = field(default_factory=dict)
    """By window: those under a policy that had it."""
    resumed_at: int = 0

    @property
    def stopped(self) -> bool:
        """Whether nobody lets it start anything."""
        return self.paused or self.policy.held is not None

    def set(self, now: int, *, policy: JobPolicy | None = None, paused: bool | None = None) -> None:
        """Writes its policy, or whether it is paused."""
        before = self.stopped
        self.policy = self.policy if policy is None else policy
        self.paused = self.paused if paused is None else paused
        if before and not self.stopped:
            self.resumed_at = now

    def waiting(self) -> dict[str, Job]:
        return {job_id: job for job_id, job in self.jobs.items() if job.waits}

    def running(self) -> dict[str, Job]:
        return {job_id: job for job_id, job in self.jobs.items() if job.status == "running"}

    def due(self, now: int) -> list[str]:
        """Jobs that may start now, the first first."""
        due = [(job.ready_as, one) for one, job in self.waiting().items() if job.run_at <= now]
        return [job_id for _, job_id in sorted(due)]

    def rate_left(self, now: int) -> float:
        """Starts that its rates allow now: by parts of a window, the present one and 32 before."""
        left = float("inf")
        for quota, window in self.policy.rates:
            width = window * 1000 / BUCKETS
            oldest = now // width - BUCKETS
            starts = self.starts.get(window, ())
            left = min(left, quota - sum(start // width >= oldest for start in starts))
        return left

    def may_start(self, now: int) -> int:
        """How many of its jobs may start now."""
        if self.stopped:
            return 0
        cap = self.policy.concurrency
        slots = float("inf") if cap is None else cap - len(self.running())
        return max(0, int(min(len(self.due(now)), slots, self.rate_left(now))))


class Model:
    """A queue whose tenants all have a policy."""

    def __init__(self) -> None:
        self.tenants: dict[str, Tenant] = {}
        self.usage: Counter[Meter] = Counter()
        self._made = 0

    def enqueue(self, tenant: str, job_id: str, function: str, priority: int, run_at: int) -> None:
        """Queues a job; one of the same id must not be there."""
        self._made += 1
        self.tenants[tenant].jobs[job_id] = Job(function, (9 - priority, self._made), run_at)

    def room(self, tenant: str) -> bool:
        """Whether one more may be queued."""
        one = self.tenants[tenant]
        most = one.policy.max_queued
        return most is None or len(one.waiting()) < most

    def eligible(self, now: int) -> frozenset[str]:
        """Tenants that may start a job now."""
        return frozenset(name for name, one in self.tenants.items() if one.may_start(now))

    def may_start(self, now: int) -> int:
        """How many jobs may start now."""
        return sum(one.may_start(now) for one in self.tenants.values())

    def reap(self, now: int) -> None:
        """Takes back leases that have run out."""
        for name, tenant in self.tenants.items():
            for job in tenant.running().values():
                if job.lease <= now:
                    self.count(name, now, "run_seconds", (job.lease - job.started_at) * 1000)
                    job.status = "cancelled" if job.cancel else "retrying"
                    job.run_at = now

    def start(self, claimed: Claimed, now: int, lease: int) -> Job:
        """Starts the job; it must be the one that its tenant may start next."""
        tenant = self.tenants[claimed.tenant]
        assert tenant.may_start(now), f"{claimed.tenant} may not start a job"
        assert claimed.job_id == tenant.due(now)[0], f"{claimed.ref} is not its tenant's first"
        job = tenant.jobs[claimed.job_id]
        job.status, job.lease, job.fence = "running", now + lease, claimed.fence
        job.attempts += 1
        job.started_at = now
        self.count(claimed.tenant, now, "started", 1)
        waited = now - max(job.run_at, tenant.resumed_at)
        self.count(claimed.tenant, now, "wait_seconds", waited * 1000)
        assert claimed.attempts == job.attempts
        for _, window in tenant.policy.rates:
            tenant.starts.setdefault(window, []).append(now)
        return job

    def end(self, tenant: str, job: Job, status: str, now: int) -> None:
        """Ends a try: the job has this status now."""
        self.count(tenant, now, "run_seconds", (now - job.started_at) * 1000)
        if status in ("succeeded", "failed", "dead"):
            self.count(tenant, now, "succeeded" if status == "succeeded" else "failed", 1)
        job.status = status

    def erase(self, tenant: str) -> None:
        """Forgets all of it but its policy, with which it begins anew."""
        self.tenants[tenant] = Tenant(self.tenants[tenant].policy)
        for meter in [one for one in self.usage if one[0] == tenant]:
            del self.usage[meter]

    def count(self, tenant: str, now: int, what: str, by: int) -> None:
        """Counts what there is to count."""
        if by:
            self.usage[tenant, now // 60_000, f"jobs.{what}"] += by

    def holds(self, claimed: Claimed) -> Job | None:
        """The job of this start, if it is still under way."""
        job = self.tenants[claimed.tenant].jobs.get(claimed.job_id)
        return job if job and job.status == "running" and job.fence == claimed.fence else None

    def compare(self, state: State) -> None:
        """Fails where the queue says otherwise."""
        ours = {
            (name, job_id): (job.attempts, job.status == "running", job.waits)
            for name, tenant in self.tenants.items()
            for job_id, job in tenant.jobs.items()
        }
        theirs = {
            ref: (
                int(job["attempts"]),
                job["status"] == "running",
                job["status"] in ("queued", "deferred", "retrying"),
            )
            for ref, job in state.jobs.items()
        }
        assert theirs == ours
        for name, tenant in self.tenants.items():
            leases = {job_id: job.lease for job_id, job in tenant.running().items()}
            assert state.of["running"].get(name, {}) == leases
