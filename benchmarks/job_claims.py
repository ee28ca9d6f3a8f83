"""What a claim costs, with few backlogged tenants and with many."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median

from benchmarks.job_peers import batched
from benchmarks.job_workers import MAX_JOBS
from benchmarks.report import Row
from partywall_workers.policy import JobPolicy
from partywall_workers.queue import FairQueue
from partywall_workers.redis import FairRedis
from partywall_workers.scripts import NewJob, Outcome
from partywall_workers.serial import dumps
from partywall_workers.worker import CLAIMS

FEW, MANY = 10, 100_000
CALLS = 200
SLOTS = MAX_JOBS // CLAIMS
"""Jobs claimed in one call, as the measured workers do."""

LEASE = 15_000
KEEP = 86_400_000
_PAYLOAD = dumps({"t": None, "f": "noop", "a": (), "k": {}, "et": 0})


@dataclass
class Costs:
    """Microseconds a job, call by call."""

    claim: list[float] = field(default_factory=list)
    release: list[float] = field(default_factory=list)


async def rows(url: str) -> list[Row]:
    """Claims of both queues in turn; what was claimed is released, as it is by a worker."""
    costs: Mapping[int, Costs] = {FEW: Costs(), MANY: Costs()}
    queues = {tenants: FairRedis.from_url(url, queue_name=f"bench-{tenants}") for tenants in costs}
    try:
        for tenants, redis in queues.items():
            # Nobody's backlog ends, so all claims find the same.
            await _fill(redis, tenants, each=max(2, 2 * SLOTS * CALLS // tenants))
        for _ in range(CALLS):
            for tenants, redis in queues.items():
                await _claim(redis, costs[tenants])
    finally:
        for redis in queues.values():
            await redis.aclose()
    few, many = costs[FEW], costs[MANY]
    what = f"µs a {{}} job, {SLOTS} a call, {MANY:,} backlogged tenants"
    return [
        _row(what.format("claimed"), many.claim, few.claim, "<= 1.5"),
        _row(what.format("released"), many.release, few.release),
    ]


async def _fill(redis: FairRedis, tenants: int, *, each: int) -> None:
    names = [f"tenant-{number}" for number in range(tenants)]
    await FairQueue(redis).set_policies({name: JobPolicy(tier="free") for name in names})
    jobs = [
        NewJob(name, f"job-{number}", "noop", _PAYLOAD, 5)
        for number in range(each)
        for name in names
    ]
    for some in batched(jobs, 500):
        await redis.scripts.enqueue(some)


async def _claim(redis: FairRedis, costs: Costs) -> None:
    start = time.perf_counter()
    jobs, _ = await redis.scripts.claim(
        SLOTS, lease=LEASE, keep=KEEP, costs=b"{}", lanes=["default"]
    )
    claimed = time.perf_counter()
    outcomes = [Outcome(job.ref, job.fence, "succeeded", KEEP, result=_PAYLOAD) for job in jobs]
    asked = time.perf_counter()
    await redis.scripts.release(outcomes)
    released = time.perf_counter()
    if len(jobs) != SLOTS:
        raise RuntimeError(f"expected {SLOTS} jobs; got {len(jobs)}")
    costs.claim.append((claimed - start) / SLOTS * 1e6)
    costs.release.append((released - asked) / SLOTS * 1e6)


def _row(what: str, many: list[float], few: list[float], wanted: str = "") -> Row:
    ratio = median(a / b for a, b in zip(many, few, strict=True))
    return Row(what, median(many), median(few), f"{FEW} tenants", ratio, wanted)
