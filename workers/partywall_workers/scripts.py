"""A typed façade over each Lua script: its signature is the script's calling contract."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from redis.asyncio import Redis
from redis.exceptions import NoScriptError

from partywall.lua import LuaFile
from partywall_workers.policy import JobPolicy
from partywall_workers.records import Backlog

Ending = Literal["succeeded", "failed", "dead", "cancelled"]
"""The status that a job stays in."""


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job to queue.

    Attributes:
        tenant: whose.
        job_id: its id among its tenant's.
        function: what it calls.
        payload: function and arguments, as arq has them.
        priority: 0 to 9.
        delay: milliseconds from now before it may start; None where `run_at` says it, or at once.
        run_at: milliseconds since the epoch.
        expires: milliseconds after its time within which it must start.
        attempts: tries it has had.
        start: the number of the start of that tenant's job which queues it.
    """

    tenant: str
    job_id: str
    function: str
    payload: bytes
    priority: int
    delay: int | None = None
    run_at: int | None = None
    expires: int | None = None
    attempts: int = 0
    start: int | None = None


class Queued(NamedTuple):
    """What came of a job to queue: instants where it was created, the cap where it was full."""

    what: Literal["created", "exists", "full", "unknown", "gone", "asked"]
    queued_at: int
    run_at: int

    @property
    def cap(self) -> int:
        """Of waiting jobs, where the queue was full."""
        return self.queued_at


class Paused(NamedTuple):
    """What came of a pause, or of its end."""

    what: Literal["done", "gone", "asked"]


class Claimed(NamedTuple):
    """A job that was started for us.

    Attributes:
        tenant: whose.
        job_id: its id among its tenant's.
        payload: function and arguments, as arq has them; empty if somebody has removed it.
        fence: the number of this start.
        attempts: starts so far, this one too.
        run_at: when it became due, in milliseconds since the epoch.
        expired: it should have started before now.
        refusals: tries put off for want of quota.
        consumed: a try before this one consumed its quota items.
        ran: its function was called before, or may have been.
        tier: its tenant's.
        features: its tenant's, as JSON.
    """

    tenant: str
    job_id: str
    payload: bytes
    fence: int
    attempts: int
    run_at: int
    expired: bool
    refusals: int
    consumed: bool
    ran: bool
    tier: str | None
    features: bytes

    @property
    def ref(self) -> str:
        """What scripts call it."""
        return f"{self.tenant}:{self.job_id}"


class Claims(NamedTuple):
    """What a claim brought.

    Attributes:
        jobs: started for us.
        pause: seconds after which there may be more without anybody waking us; None: never.
    """

    jobs: list[Claimed]
    pause: float | None


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a try ended.

    Attributes:
        ref: `tenant:job_id`.
        fence: the number of its start.
        how: `retry`, or the status that the job ends with.
        keep: milliseconds that the finished job is kept.
        delay: milliseconds until the next try.
        result: as arq has it, or nothing.
        error: type and message of what it failed with.
        traceback: of that.
        owed: quota items to give back if it never runs, as JSON, or nothing.
        uncounted: it was no try of the job's own: it was handed back, or could not begin. Heeded
            with `retry` and `dead`.
        refused: it could not begin for want of quota.
        consumed: its quota items are consumed.
        ran: the job's function was called.
    """

    ref: str
    fence: int
    how: Ending | Literal["retry"]
    keep: int = 0
    delay: int = 0
    result: bytes = b""
    error: str = ""
    traceback: str = ""
    owed: str = ""
    uncounted: bool = False
    refused: bool = False
    consumed: bool = False
    ran: bool = False

    def words(self) -> tuple[str | bytes | int, ...]:
        """As `release.lua` takes it."""
        how: str = self.how
        if how in ("retry", "dead"):
            flags = (self.uncounted, self.refused, self.consumed, self.ran)
            how += "".join(letter for letter, on in zip("urcs", flags, strict=True) if on)
        return (
            self.ref,
            self.fence,
            how,
            self.keep,
            self.delay,
            self.result,
            self.error,
            self.traceback,
            self.owed,
        )


class Scripts:
    """The scripts of one queue, on one client; errors of redis-py pass through.

    Args:
        client: a single server's.
        queue: its name.
        now: milliseconds since the epoch in place of the server's clock, for tests.
    """

    def __init__(self, client: Redis, queue: str, now: int | None = None) -> None:
        self._client = client
        self._queue = queue
        self.now = now

    async def enqueue(self, jobs: Iterable[NewJob]) -> list[Queued]:
        """`enqueue.lua`: what came of each, in order."""
        words: list[Any] = []
        for job in jobs:
            words += (job.tenant, job.job_id, job.function, job.payload, job.priority)
            words += (_or_empty(job.delay), _or_empty(job.run_at), _or_empty(job.expires))
            words += (job.attempts, _or_empty(job.start))
        answers = await self._call(_enqueue, *words)
        return [Queued(what.decode(), int(at), int(due)) for what, at, due in answers]

    async def claim(
        self, slots: int, *, lease: int, keep: int, costs: bytes, lanes: Sequence[str]
    ) -> Claims:
        """`claim.lua`: up to `slots` jobs, each leased for `lease` milliseconds.

        Args:
            slots: how many.
            lease: in milliseconds.
            keep: milliseconds that a job is kept which is found cancelled.
            costs: of functions whose cost is not 1, as a JSON object.
            lanes: where to look, in this order.
        """
        pause, *jobs = await self._call(_claim, slots, lease, keep, costs, *lanes)
        return Claims([_claimed(*job) for job in jobs], None if pause < 0 else pause / 1000)

    async def release(self, outcomes: Iterable[Outcome]) -> list[bool]:
        """`release.lua`: whether each was still ours."""
        words: list[Any] = []
        for outcome in outcomes:
            words += outcome.words()
        return [answer == 1 for answer in await self._call(_release, *words)]

    async def renew(
        self, lease: int, leases: Iterable[tuple[str, int]]
    ) -> list[Literal["renewed", "cancel", "lost"]]:
        """`renew.lua`: what became of each lease, given by reference and fence."""
        words = [word for one in leases for word in one]
        states: tuple[Literal["lost", "renewed", "cancel"], ...] = ("lost", "renewed", "cancel")
        return [states[answer] for answer in await self._call(_renew, lease, *words)]

    async def cancel(
        self, tenant: str, job_id: str, *, keep: int, result: bytes
    ) -> Literal["cancelled", "asked", "finished", "unknown"]:
        """`cancel.lua`."""
        answer = await self._call(_cancel, tenant, job_id, keep, result)
        what: Literal["cancelled", "asked", "finished", "unknown"] = answer.decode()
        return what

    async def purge(
        self, tenant: str, *, most: int, keep: int, last: int | None
    ) -> tuple[int, int]:
        """`purge.lua`: how many, and the sequence to go on with."""
        purged, last = await self._call(_purge, tenant, most, keep, _or_empty(last))
        return purged, int(last or 0)

    async def revive(self, tenant: str, job_id: str) -> tuple[str, int]:
        """`revive.lua`: `revived`, `full` with the cap, `unknown`, or the job's status."""
        what, cap = await self._call(_revive, tenant, job_id)
        return what.decode(), int(cap)

    async def pause(self, tenant: str, *, paused: bool) -> Paused:
        """`pause.lua`."""
        return Paused((await self._call(_pause, tenant, int(paused))).decode())

    async def erase(
        self, tenant: str, *, most: int, stone: int, last: int | None, jobs: Sequence[str] = ()
    ) -> tuple[int, int]:
        """`erase.lua`: how many jobs, and the sequence to go on with.

        Args:
            tenant: whose.
            most: jobs.
            stone: milliseconds for which it stays known that it was erased.
            last: what the call before gave.
            jobs: these, and not those in its list.
        """
        erased, last = await self._call(_erase, tenant, most, stone, _or_empty(last), *jobs)
        return erased, int(last)

    async def drop_owed(self, tenant: str, most: int) -> int:
        """`drop_owed.lua`: how many debts."""
        dropped: int = await self._call(_drop_owed, tenant, most)
        return dropped

    async def forget(self, points: Iterable[tuple[str, int, str, int]]) -> None:
        """`forget.lua`."""
        await self._call(_forget, *(word for point in points for word in point))

    async def policy(self, policies: Mapping[str, JobPolicy]) -> None:
        """`policy.lua`."""
        words: list[Any] = []
        for tenant, policy in policies.items():
            rates = " ".join(f"{quota}/{window}" for quota, window in policy.rates)
            words += (tenant, policy.tier or "", json.dumps(policy.features), policy.weight)
            words += (_or_empty(policy.concurrency), _or_empty(policy.max_queued))
            words += (rates, policy.lane, policy.held or "")
        await self._call(_policy, *words)

    async def backlog(self, tenants: Sequence[str]) -> list[Backlog]:
        """`backlog.lua`: of each, in order."""
        answers = await self._call(_backlog, *tenants)
        return [_backlog_of(*pair) for pair in zip(tenants, answers, strict=True)]

    async def _call(self, script: LuaFile, *words: Any) -> Any:  # noqa: ANN401 - what redis-py takes
        now = "" if self.now is None else self.now
        execute: Any = self._client.execute_command
        try:
            return await execute("EVALSHA", script.sha, 1, self._queue, now, *words)
        except NoScriptError:
            return await execute("EVAL", script.text, 1, self._queue, now, *words)


def _script(name: str) -> LuaFile:
    return LuaFile(name, __package__)


_enqueue, _claim, _release, _renew = map(_script, ("enqueue", "claim", "release", "renew"))
_cancel, _purge, _revive, _pause = map(_script, ("cancel", "purge", "revive", "pause"))
_policy, _backlog, _forget = map(_script, ("policy", "backlog", "forget"))
_erase, _drop_owed = map(_script, ("erase", "drop_owed"))


def _or_empty(number: int | None) -> int | str:
    return "" if number is None else number


def _claimed(
    tenant: bytes,
    job_id: bytes,
    payload: bytes,
    fence: bytes,
    attempts: int,
    run_at: bytes,
    expired: int,
    refusals: bytes,
    consumed: bytes,
    ran: bytes,
    tier: bytes,
    features: bytes,
) -> Claimed:
    return Claimed(
        tenant.decode(),
        job_id.decode(),
        payload,
        int(fence),
        attempts,
        int(run_at),
        expired == 1,
        int(refusals),
        consumed == b"1",
        ran == b"1",
        tier.decode() or None,
        features,
    )


def _backlog_of(tenant: str, answer: Sequence[Any]) -> Backlog:
    tier, lane, weight, queued, deferred, running, dead, oldest, *rest = answer
    concurrency, max_queued, paused, held, claims, retries, died, expired = rest
    return Backlog(
        tenant=tenant,
        tier=tier.decode() or None,
        lane=lane.decode(),
        weight=float(weight),
        queued=queued,
        deferred=deferred,
        running=running,
        dead=dead,
        oldest_wait=int(oldest) / 1000,
        concurrency=None if concurrency == b"" else int(concurrency),
        max_queued=None if max_queued == b"" else int(max_queued),
        paused=paused == 1,
        held=held.decode() or None,
        claims=int(claims),
        retries=int(retries),
        died=int(died),
        expired=int(expired),
    )
