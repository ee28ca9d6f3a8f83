"""What a scrape tells of jobs."""

import asyncio
from pathlib import Path

import pytest

from partywall_service.jobs.metrics import DEADLINE, FRESH, MOST_NAMED, JobMetrics
from partywall_service.metrics import Metrics
from partywall_workers.errors import QueueUnavailable
from partywall_workers.records import Backlog
from tests.support.virtual_time import run_virtually

COUNTED = ("claims", "retries", "died", "expired")


def backlog(tenant: str, tier: str | None, **numbers: float) -> Backlog:
    none = dict.fromkeys(("queued", "deferred", "running", *COUNTED), 0) | {"oldest_wait": 0.0}
    given = none | numbers
    return Backlog(
        tenant=tenant,
        tier=tier,
        lane="default",
        weight=1,
        dead=0,
        concurrency=None,
        max_queued=None,
        paused=False,
        held=None,
        **given,  # type: ignore[arg-type] # counts are whole
    )


class Queue:
    """A queue that says what a test put into it."""

    def __init__(self, *backlogs: Backlog, counts: dict[str, dict[str, int]] | None = None) -> None:
        self.all = list(backlogs)
        self.counted = counts or {}
        self.reads = 0
        self.fails: Exception | None = None
        self.hangs = False

    async def backlogs(self, *, limit: int = 20) -> list[Backlog]:
        self.reads += 1
        if self.hangs:
            await asyncio.Event().wait()
        if self.fails is not None:
            raise self.fails
        return self.all[:limit]

    async def busy(self) -> int:
        return len(self.all)

    async def counts(self) -> dict[str, dict[str, int]]:
        return self.counted

    async def workers(self) -> int:
        return 3


async def told(queue: Queue) -> dict[str, float]:
    """Every sample, by its name with its labels."""
    metrics = Metrics()
    metrics.sources.append(JobMetrics(queue))
    lines = (await metrics.render()).decode().splitlines()
    ours = [line for line in lines if line.startswith("partywall_jobs_")]
    samples = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in ours}
    assert len(samples) == len(ours)  # none twice
    return samples


async def test_gauges_are_added_up_by_tier_and_told_of_the_busiest_by_name() -> None:
    samples = await told(
        Queue(
            backlog(
                "noisy",
                "free",
                queued=90,
                deferred=10,
                running=2,
                oldest_wait=7.5,
                **dict(zip(COUNTED, (50, 6, 7, 8), strict=True)),
            ),
            backlog("acme", "pro", queued=1, oldest_wait=0.5),
            backlog("beta", "free", queued=3, running=1, oldest_wait=9.0),
            backlog("new", None, queued=1),
        )
    )
    assert samples['partywall_jobs_queued{tier="free"}'] == 103
    assert samples['partywall_jobs_running{tier="free"}'] == 3
    assert samples['partywall_jobs_oldest_wait_seconds{tier="free"}'] == 9
    assert samples['partywall_jobs_queued{tier="pro"}'] == 1
    assert samples['partywall_jobs_queued{tier="_unknown"}'] == 1
    assert samples['partywall_jobs_tenant_queued{tenant="noisy"}'] == 100
    assert samples['partywall_jobs_tenant_running{tenant="noisy"}'] == 2
    told_as = ("claims", "retries", "dead", "lease_expiries")
    assert [samples[f'partywall_jobs_tenant_{one}_total{{tenant="noisy"}}'] for one in told_as] == [
        *(50, 6, 7, 8)
    ]
    assert samples['partywall_jobs_tenant_oldest_wait_seconds{tenant="beta"}'] == 9
    assert samples["partywall_jobs_up"] == 1
    assert samples["partywall_jobs_workers"] == 3
    assert samples["partywall_jobs_tenants"] == 4


async def test_counters_are_by_tier_and_an_idle_tier_says_nought() -> None:
    free = {"claims": 9, "retries": 2, "dead": 1, "expired": 3, "succeeded": 5, "cancelled": 4}
    samples = await told(Queue(counts={"free": free, "": {"failed": 6}}))
    assert samples['partywall_jobs_claims_total{tier="free"}'] == 9
    assert samples['partywall_jobs_retries_total{tier="free"}'] == 2
    assert samples['partywall_jobs_dead_total{tier="free"}'] == 1
    assert samples['partywall_jobs_lease_expiries_total{tier="free"}'] == 3
    assert samples['partywall_jobs_claims_total{tier="_unknown"}'] == 0
    finished = {
        status: samples[f'partywall_jobs_finished_total{{status="{status}",tier="free"}}']
        for status in ("succeeded", "failed", "dead", "cancelled")
    }
    assert finished == {"succeeded": 5, "failed": 0, "dead": 1, "cancelled": 4}
    assert samples['partywall_jobs_queued{tier="free"}'] == 0
    assert samples['partywall_jobs_finished_total{status="failed",tier="_unknown"}'] == 6


async def test_however_many_tenants_come_few_are_named() -> None:
    queue = Queue(*(backlog(f"t{n}", "free", queued=1) for n in range(5000)))
    samples = await told(queue)
    assert sum("tenant=" in name for name in samples) == 7 * MOST_NAMED
    assert samples["partywall_jobs_tenants"] == 5000


async def test_a_redis_that_is_away_fails_no_scrape() -> None:
    queue = Queue(backlog("acme", "pro", queued=1))
    queue.fails = QueueUnavailable("it is away")
    assert await told(queue) == {"partywall_jobs_up": 0}


def test_a_redis_that_hangs_holds_a_scrape_up_for_its_deadline() -> None:
    async def main() -> None:
        queue = Queue()
        queue.hangs = True
        loop = asyncio.get_running_loop()
        assert await told(queue) == {"partywall_jobs_up": 0}
        assert loop.time() == pytest.approx(DEADLINE)

    run_virtually(main())


async def test_a_reading_is_told_again_for_a_moment() -> None:
    now = 100.0
    queue = Queue(backlog("acme", "pro", queued=1))
    metrics = JobMetrics(queue, clock=lambda: now)
    first = await metrics.families()
    now += FRESH - 0.1
    assert await metrics.families() is first
    now += 0.1
    await asyncio.gather(*(metrics.families() for _ in range(5)))
    assert queue.reads == 2


async def test_worker_processes_tell_what_is_everybodys_once(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    samples = await told(Queue(backlog("acme", "pro", queued=7)))
    assert samples['partywall_jobs_queued{tier="pro"}'] == 7
