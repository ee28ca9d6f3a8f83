"""A queue and its model, taken through the same steps; after each, both must be alike."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from hypothesis import strategies as st

from partywall_workers.errors import JobConflict
from partywall_workers.policy import JobPolicy
from partywall_workers.scripts import Claimed
from partywall_workers.usage import JobUsage
from tests.engine.jobs.check import check
from tests.engine.jobs.driver import LEASE, Jobs
from tests.engine.jobs.ledger import Ledger
from tests.engine.jobs.model import COST, Meter, Model, Tenant

TENANTS = ("acme", "beta", "corp", "dora")

Step = tuple[object, ...]

_tenant = st.sampled_from(TENANTS)
_pick = st.integers(0, 1000)
_caps = st.one_of(st.none(), st.integers(0, 4))
# Windows so long that the server, whose clock is another, does not forget starts meanwhile.
_rates = st.sampled_from([(), (), ((2, 60),), ((5, 300),), ((3, 60), (6, 240)), ((0, 60),)])

policies = st.builds(
    JobPolicy,
    weight=st.sampled_from([1, 1, 2, 5, 0.5, 0.1]),
    concurrency=_caps,
    max_queued=st.one_of(st.none(), st.integers(0, 30)),
    rates=_rates,
    held=st.sampled_from([None, None, None, "suspended"]),
)
"""Any tenant's."""

generous = st.builds(JobPolicy, weight=st.sampled_from([1, 1, 2, 5, 0.5, 0.1, 3.7]))
"""Of tenants that are mostly backlogged and eligible."""

_add = st.tuples(
    st.just("add"),
    _tenant,
    st.sampled_from([*COST, "work"]),
    st.sampled_from([5, 5, 5, 0, 9]),  # priority
    st.sampled_from([0, 0, 0, 1, 500, 20_000]),  # delay
    st.integers(1, 8),  # how many
)
_claim = st.tuples(st.just("claim"), st.sampled_from([0, 1, 1, 2, 3, 10, 100]))
_end = st.tuples(
    st.just("end"),
    _pick,
    st.sampled_from(["succeeded", "succeeded", "failed", "dead", "cancelled", "retry", "handed"]),
    st.sampled_from(
        [0, 0, 1, 700]
    ),  # delay of a retry; 0: a finished job is not kept, now and then
)
_pass = st.tuples(st.just("pass"), st.sampled_from([1, 1875, 7000, LEASE, 60_000, 61_875]))
_other = st.one_of(
    st.tuples(st.sampled_from(["pause", "resume", "resume", "purge", "add again"]), _tenant, _pick),
    st.tuples(st.sampled_from(["cancel", "revive"]), _tenant, _pick),
    st.tuples(st.just("renew"), st.just("")),
    st.tuples(st.just("policy"), _tenant, _caps, _rates),
    st.tuples(st.sampled_from(["erase", "roll up"]), _tenant),
)
_rare = st.one_of(_pass, _other)
steps = st.lists(
    st.one_of(_add, _add, _claim, _claim, _end, _end, _pass, _other), min_size=25, max_size=60
)
"""What may happen to a queue, in any order."""

_some = st.tuples(st.just("claim"), st.integers(1, 12))
_stop = st.tuples(st.sampled_from(["pause", "resume", "resume"]), _tenant, _pick)
busy_steps = st.lists(
    st.one_of(_add, _some, _some, _some, _some, _end, _end, _end, _stop, _rare),
    min_size=30,
    max_size=60,
)
"""The same, mostly claims; made for queues that were filled."""


class World:
    """Takes both through steps.

    Args:
        jobs: a queue without any job.
        policies: of TENANTS, in order.
    """

    def __init__(self, jobs: Jobs, policies: Sequence[JobPolicy]) -> None:
        self.jobs = jobs
        self.model = Model()
        self.held: list[Claimed] = []
        self.taken: list[Step] = []
        self.made = 0
        self.usage = JobUsage(jobs.redis)
        self.rolled: dict[Meter, int] = {}
        for name, policy in zip(TENANTS, policies, strict=True):
            self.model.tenants[name] = Tenant(policy)
        self.ledger = Ledger({name: one.policy.weight for name, one in self.model.tenants.items()})

    async def run(self, steps: Sequence[Step]) -> None:
        """Takes every step, looking at the whole queue after each; then at how fair it was."""
        policies = {name: one.policy for name, one in self.model.tenants.items()}
        await self.usage.keep(counting=True)
        await self.jobs.queue.set_policies(policies)
        with self._noting():
            for step in steps:
                await self._take(step)
                await self._look()
            self.ledger.check()

    async def run_filled(self, steps: Sequence[Step]) -> None:
        """Takes every step from full queues on; looks at the whole queue at the end only."""
        await self.usage.keep(counting=True)
        for name, one in self.model.tenants.items():
            await self.jobs.queue.set_policy(name, one.policy)
            for function in [*COST] * 2:
                await self._add(name, function, 5, 0, 6)
        with self._noting():
            for step in steps:
                await self._take(step)
            await self._look()
            self.ledger.check()

    @contextmanager
    def _noting(self) -> Iterator[None]:
        """Tells of a failure which steps led to it."""
        policies = {name: one.policy for name, one in self.model.tenants.items()}
        try:
            yield
        except AssertionError as failed:
            failed.add_note(f"after the steps {self.taken} of {policies}")
            raise

    async def _take(self, step: Step) -> None:
        self.taken.append(step)
        what, *words = step
        await getattr(self, f"_{str(what).replace(' ', '_')}")(*words)
        self.ledger.now_eligible(self.model.eligible(self.jobs.now))

    async def _look(self) -> None:
        self.model.compare(await check(self.jobs.queue, self.jobs.now))
        here = {(one.tenant, one.minute, one.meter): one.value for one in await self.usage.held()}
        assert self.rolled | here == self.model.usage, "what was counted is not what was done"

    async def drain(self) -> None:
        """Lets every job end: nothing is lost, nothing stays."""
        for name, one in self.model.tenants.items():
            policy = JobPolicy(weight=one.policy.weight)
            one.set(self.jobs.now, policy=policy, paused=False)
            await self.jobs.queue.set_policy(name, one.policy)
            await self.jobs.queue.resume(name)
        while any(job.waits or job.lease for job in self._unfinished()):
            self.jobs.pass_time(400_000)
            await self._claim(1000)
            while self.held:
                await self._end(0, "succeeded", 1)
        state = await check(self.jobs.queue, self.jobs.now)
        assert not state.unfinished()
        lasting = {key for key, ttl in state.ttl.items() if ttl < 0}
        allowed = {("clock",), ("counts",), ("tenants",), ("lanes",), ("wake", "default")}
        allowed |= {("metered",)}
        assert lasting <= allowed, f"keys that never end: {lasting - allowed}"

    def _unfinished(self):
        return [
            job
            for one in self.model.tenants.values()
            for job in one.jobs.values()
            if job.waits or job.status == "running"
        ]

    async def _add(self, tenant, function, priority, delay, count):
        redis = self.jobs.redis
        new = []
        for _ in range(count):
            self.made += 1
            new.append(
                redis.new_job(
                    tenant,
                    function,
                    (),
                    {},
                    job_id=f"j{self.made}",
                    priority=priority,
                    defer_by=delay / 1000,
                    defer_until=None,
                    expires=None,
                )
            )
        for job, queued in zip(new, await self.jobs.scripts.enqueue(new), strict=True):
            if not self.model.room(tenant):
                assert queued.what == "full"
                continue
            assert queued == ("created", self.jobs.now, self.jobs.now + delay)
            self.model.enqueue(tenant, job.job_id, function, priority, self.jobs.now + delay)

    async def _add_again(self, tenant, pick):
        if job_id := self._one(list(self.model.tenants[tenant].jobs), pick):
            assert not (await self.jobs.queue.enqueue(tenant, "work", job_id=job_id)).created

    async def _claim(self, slots):
        now, model = self.jobs.now, self.model
        model.reap(now)
        expected = min(slots, model.may_start(now))
        claims = await self.jobs.claims(slots)
        assert len(claims.jobs) == expected, "a slot was left free, or filled too often"
        for claimed in claims.jobs:
            eligible = model.eligible(now)
            job = model.start(claimed, now, LEASE)
            self.ledger.start(claimed.tenant, COST[job.function], eligible)
        self.held += claims.jobs

    async def _end(self, pick, how, delay):
        claimed = self._one(self.held, pick)
        if claimed is None:
            return
        self.held.remove(claimed)
        job = self.model.holds(claimed)
        jobs = self.model.tenants[claimed.tenant].jobs
        retry = how in ("retry", "handed")
        if retry:
            (ours,) = await self.jobs.end(claimed, "retry", delay=delay, uncounted=how == "handed")
        else:
            keep = {} if delay or pick % 2 else {"keep": 0}
            (ours,) = await self.jobs.end(claimed, how, **keep)
        assert ours == (job is not None), "a late word was taken, or one in time refused"
        if job is None:
            return
        status = how if not retry else "cancelled" if job.cancel else "retrying"
        self.model.end(claimed.tenant, job, status, self.jobs.now)
        if status == "retrying":
            job.run_at = self.jobs.now + delay
            job.attempts -= how == "handed"
        elif not (retry or delay or pick % 2):
            del jobs[claimed.job_id]

    async def _pass(self, milliseconds):
        self.jobs.pass_time(milliseconds)

    async def _pause(self, tenant, _):
        paused = await self.jobs.queue.pause(tenant)
        self.model.tenants[tenant].set(self.jobs.now, paused=paused)

    async def _resume(self, tenant, _):
        paused = await self.jobs.queue.resume(tenant)
        self.model.tenants[tenant].set(self.jobs.now, paused=paused)

    async def _purge(self, tenant, _):
        waiting = self.model.tenants[tenant].waiting().values()
        assert await self.jobs.queue.purge(tenant) == len(waiting)
        for job in waiting:
            job.status = "cancelled"

    async def _cancel(self, tenant, pick):
        jobs = self.model.tenants[tenant].jobs
        job_id = self._one(list(jobs), pick)
        if job_id is None:
            return
        job = jobs[job_id]
        finished = not job.waits and job.status != "running"
        try:
            record = await self.jobs.queue.cancel(tenant, job_id, wait=0)
        except JobConflict:
            assert finished
            return
        assert not finished
        if job.status == "running":
            job.cancel = True
        else:
            job.status = "cancelled"
        assert record.status == job.status

    async def _revive(self, tenant, pick):
        jobs = self.model.tenants[tenant].jobs
        dead = [job_id for job_id, job in jobs.items() if job.status == "dead"]
        job_id = self._one(dead, pick)
        if job_id is None:
            return
        what, _ = await self.jobs.scripts.revive(tenant, job_id)
        assert what == ("revived" if self.model.room(tenant) else "full")
        if what == "revived":
            job = jobs[job_id]
            job.status, job.attempts, job.cancel = "queued", 0, False
            job.run_at = self.jobs.now

    async def _renew(self, _):
        answers = await self.jobs.scripts.renew(LEASE, [(one.ref, one.fence) for one in self.held])
        for claimed, answer in zip(self.held, answers, strict=True):
            job = self.model.holds(claimed)
            if job is None:
                assert answer == "lost"
                continue
            assert answer == ("cancel" if job.cancel else "renewed")
            job.lease = self.jobs.now + LEASE

    async def _policy(self, tenant, concurrency, rates):
        one = self.model.tenants[tenant]
        policy = JobPolicy(weight=one.policy.weight, concurrency=concurrency, rates=rates)
        one.set(self.jobs.now, policy=policy)
        await self.jobs.queue.set_policy(tenant, policy)

    async def _erase(self, tenant):
        await self.jobs.queue.erase(tenant)
        self.model.erase(tenant)
        self.rolled = {meter: value for meter, value in self.rolled.items() if meter[0] != tenant}
        await self.jobs.queue.set_policy(tenant, self.model.tenants[tenant].policy)

    async def _roll_up(self, _):
        async for points in self.usage.closed():
            assert all(point.minute < self.jobs.now // 60_000 for point in points)
            self.rolled |= {(one.tenant, one.minute, one.meter): one.value for one in points}
            await self.usage.forget(points)

    @staticmethod
    def _one(choices, pick):
        return choices[pick % len(choices)] if choices else None
