"""The whole state of a queue, read at once, and what must hold of it after every step.

A job's own hash is what is believed; every set, list and arq key must follow from it.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from partywall_workers.queue import FairQueue

WAITING = {"queued", "deferred", "retrying"}
FINISHED = {"succeeded", "failed", "dead", "cancelled"}

BUCKETS = 32
"""Parts of a rate's window."""

_ONE = {
    "busy": "zset",
    "clock": "hash",
    "counts": "hash",
    "due": "zset",
    "ends": "zset",
    "functions": "hash",
    "keeper": "string",
    "keeper:wake": "list",
    "lanes": "set",
    "leases": "zset",
    "metered": "set",
    "owed": "list",
    "rolled": "string",
    "tenants": "set",
    "wanted": "set",
}
_OF_TENANT = {
    "all": "zset",
    "answer": "string",
    "dead": "zset",
    "deferred": "zset",
    "gone": "string",
    "kept": "zset",
    "ready": "zset",
    "running": "zset",
    "starts": "hash",
    "tenant": "hash",
    "usage": "hash",
}
_OF_LANE = {"active": "zset", "wake": "list", "workers": "zset"}
_ARQ = ("job", "in-progress", "result")

_READ = """
local found = {}
for _, pattern in ipairs(ARGV) do
  for _, key in ipairs(redis.call('KEYS', pattern)) do
    local kind = redis.call('TYPE', key).ok
    local value
    if kind == 'zset' then value = redis.call('ZRANGE', key, 0, -1, 'WITHSCORES')
    elseif kind == 'hash' then value = redis.call('HGETALL', key)
    elseif kind == 'list' then value = redis.call('LRANGE', key, 0, -1)
    elseif kind == 'set' then value = redis.call('SMEMBERS', key)
    else value = redis.call('GET', key) end
    found[#found + 1] = {key, kind, redis.call('PTTL', key), value}
  end
end
return {found, redis.call('ZRANGE', 'arq:abort', 0, -1)}
"""


@dataclass
class State:
    """A queue's keys by what they are; `jobs`, and the keys of arq, by (tenant, job id)."""

    one: dict[str, Any] = field(default_factory=dict)
    of: dict[str, dict[str, Any]] = field(default_factory=lambda: defaultdict(dict))
    jobs: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    arq: dict[str, dict[tuple[str, str], str]] = field(default_factory=lambda: defaultdict(dict))
    registry: dict[str, float] = field(default_factory=dict)
    abort: set[tuple[str, str]] = field(default_factory=set)
    ttl: dict[tuple[str, ...], int] = field(default_factory=dict)
    strange: list[str] = field(default_factory=list)

    def members(self, kind: str) -> set[tuple[str, str]]:
        """Of the sets of this kind, with whose they are."""
        return {(tenant, one) for tenant, held in self.of[kind].items() for one in held}

    def having(self, *statuses: str) -> set[tuple[str, str]]:
        """Jobs whose hash says one of them."""
        return {ref for ref, job in self.jobs.items() if job["status"] in statuses}

    def unfinished(self) -> set[tuple[str, str]]:
        """Jobs that wait or run."""
        return self.having("running", *WAITING)


async def read(queue: FairQueue) -> State:
    """Every key of the queue, in one step."""
    name = queue.name
    found, abort = await queue.redis.eval(_READ, 0, f"{name}*", f"arq:*:{name}:*")
    state = State()
    for key, kind, ttl, value in found:
        _take(state, name, key.decode(), kind.decode(), ttl, _plain(kind, value))
    for member in abort:
        if parts := queue.redis.names.parts(member.decode()):
            state.abort.add(parts)
    return state


def _plain(kind: bytes, value: Any) -> Any:
    if kind == b"string":
        return value.decode(errors="replace")
    words = [word.decode() for word in value]
    if kind == b"hash":
        return dict(zip(words[::2], words[1::2], strict=True))
    if kind == b"zset":
        return {one: float(score) for one, score in zip(words[::2], words[1::2], strict=True)}
    return words


def _take(state: State, name: str, key: str, kind: str, ttl: int, value: Any) -> None:
    if key == name:
        state.registry = value
        return
    for what in _ARQ:
        start = f"arq:{what}:{name}:"
        if key.startswith(start):
            tenant, _, job_id = key.removeprefix(start).partition(":")
            state.arq[what][tenant, job_id] = value
            state.ttl[what, tenant, job_id] = ttl
            return
    rest = key.removeprefix(f"{name}:")
    if _ONE.get(rest) == kind:
        state.one[rest] = value
        state.ttl[(rest,)] = ttl
        return
    what, _, of = rest.partition(":")
    if what == "job":
        tenant, _, job_id = of.partition(":")
        state.jobs[tenant, job_id] = value
        state.ttl["hash", tenant, job_id] = ttl
    elif of and kind in (_OF_TENANT.get(what), _OF_LANE.get(what)):
        state.of[what][of] = value
        state.ttl[what, of] = ttl
    else:
        state.strange.append(f"{key} ({kind})")


async def check(queue: FairQueue, now: int) -> State:
    """Fails where the queue's state contradicts itself; gives it back for more questions."""
    state = await read(queue)
    assert not state.strange, f"keys that keys.py does not name: {state.strange}"
    _check_jobs(state)
    _check_arq(state)
    _check_ends(state)
    if "rolled" in state.one:
        _ends(state, ("rolled",), when=True)
    _check_active(state, now)
    return state


def _check_jobs(state: State) -> None:
    waiting, running = state.having(*WAITING), state.having("running")
    ready, deferred = state.members("ready"), state.members("deferred")
    assert not ready & deferred, "a job waits twice"
    assert ready | deferred == waiting, "who waits is not who says so"
    assert state.members("running") == running, "who runs is not who says so"
    leases = {_parts(ref): at for ref, at in state.one.get("leases", {}).items()}
    assert leases == {
        (tenant, one): at
        for tenant, held in state.of["running"].items()
        for one, at in held.items()
    }, "leases of tenants are not the leases of all"
    for tenant, one in ready:
        assert state.of["ready"][tenant][one] == float(state.jobs[tenant, one]["rank"])
    for tenant, one in deferred:
        assert state.of["deferred"][tenant][one] == float(state.jobs[tenant, one]["run_at"])
    busy = Counter(tenant for tenant, _ in state.unfinished())
    assert state.one.get("busy", {}) == busy, "busy is not how many jobs are unfinished"
    kept, listed = state.members("kept"), state.members("all")
    assert state.unfinished() <= listed <= state.unfinished() | kept, "the list of all jobs"
    assert not state.unfinished() & kept, "an unfinished job is to be forgotten"
    assert state.having(*FINISHED) <= kept & listed, "a finished job is nowhere"
    assert state.having("dead") <= state.members("dead") <= kept, "dead jobs"
    assert not state.members("dead") & (state.having(*FINISHED - {"dead"}) | state.unfinished())
    fences = [state.jobs[ref]["fence"] for ref in running]
    assert len(set(fences)) == len(fences), "two starts have one number"
    assert set(state.of["usage"]) == set(state.one.get("metered", ())), "whose counts there are"


def _check_arq(state: State) -> None:
    unfinished, running = state.unfinished(), state.having("running")
    registry = {_parts(ref.split(":jobs:", 1)[1]) for ref in state.registry}
    assert registry == unfinished, "arq's registry is not the unfinished jobs"
    assert set(state.arq["in-progress"]) == running, "in-progress keys are not who runs"
    assert set(state.arq["job"]) == unfinished | state.having("dead"), "payloads"
    assert set(state.arq["result"]) <= state.having(*FINISHED), "a result of an unfinished job"
    asked = {ref for ref in running if "cancel" in state.jobs[ref]}
    assert asked <= state.abort <= running, "arq's abort flags are not the jobs to be cancelled"


def _check_ends(state: State) -> None:
    """What is done with has an end, and nothing else has."""
    busy = state.one.get("busy", {})
    for ref, job in state.jobs.items():
        _ends(state, ("hash", *ref), when=job["status"] in FINISHED)
    for ref in state.arq["job"]:
        _ends(state, ("job", *ref), when=ref not in state.unfinished())
    for ref in state.arq["result"]:
        _ends(state, ("result", *ref), when=True)
    for kind in ("all", "kept"):  # a busy tenant's are tidied as its jobs end
        for tenant in state.of[kind]:
            _ends(state, (kind, tenant), when=tenant not in busy)
    for kind in ("dead", "starts", "usage", "gone"):
        for tenant in state.of[kind]:
            _ends(state, (kind, tenant), when=True)
    for tenant, policy in state.of["tenant"].items():
        _ends(state, ("tenant", tenant), when=tenant not in busy and "paused" not in policy)


def _ends(state: State, key: tuple[str, ...], *, when: bool) -> None:
    assert (state.ttl[key] >= 0) == when, f"{key}: {'endless' if when else 'ends'}"


def _check_active(state: State, now: int) -> None:
    """Who may start a job is active; whose time will come is due; nobody else is either."""
    due = dict(state.one.get("due", {}))
    active = {
        lane: dict(state.of["active"].get(lane, {})) for lane in {"default", *state.of["active"]}
    }
    keeper = "keeper" in state.one
    for tenant in state.one.get("busy", {}):
        policy = state.of["tenant"].get(tenant, {})
        at = due.pop(tenant, None)
        lane = policy.get("lane") or "default"
        here = active.setdefault(lane, {}).pop(tenant, None)
        assert at is None or here is None, f"{tenant} is active, and due"
        if here is not None:
            time = float(state.one.get("clock", {}).get(lane, 0))
            assert here >= time, f"{tenant} lags behind the virtual time"
        jobs = [state.jobs[tenant, one] for one in state.of["running"].get(tenant, {})]
        cap = policy.get("concurrency")
        stopped = "paused" in policy or policy.get("held")
        if stopped or (cap and len(jobs) >= int(cap)):
            assert here is None, f"{tenant} is active, and may not start"
            assert at is None, f"{tenant} is due, and will not start"
            continue
        first = _first(state, tenant, now)
        if first is None:
            assert here is None, f"{tenant} is active without a job"
            assert at is None, f"{tenant} is due without a job"
        elif first > now or at is not None:
            assert here is None, f"{tenant} is active before its time"
            assert at is not None, f"{tenant} will not be woken"
            allowed = first if first > now else now + _longest_wait(policy)
            allowed += 10_000 if keeper and "policy" not in policy else 0
            assert at <= allowed, f"{tenant} will be woken late"
        else:
            assert here is not None, f"{tenant} may start, and is not active"
    assert not due, f"due without a job: {due}"
    assert not any(active.values()), f"active without a job, or in the wrong lane: {active}"
    for lane in state.of["active"]:
        assert lane in state.of["wake"], f"nobody will wake for {lane}"


def _first(state: State, tenant: str, now: int) -> float | None:
    """When the tenant's first job becomes due; now, where one is; None without any."""
    if state.of["ready"].get(tenant):
        return now
    return min(state.of["deferred"].get(tenant, {}).values(), default=None)


def _longest_wait(policy: dict[str, str]) -> float:
    """Milliseconds: of a rate, its window and one part more."""
    windows = [int(rate.split("/")[1]) for rate in policy.get("rates", "").split()]
    unknown = 10_000 if "policy" not in policy else 0
    return max((window * 1000 * (BUCKETS + 1) / BUCKETS for window in windows), default=0) + unknown


def _parts(ref: str) -> tuple[str, str]:
    tenant, _, job_id = ref.partition(":")
    return tenant, job_id


def names(refs: Iterable[tuple[str, str]], tenant: str) -> set[str]:
    """Job ids of one tenant."""
    return {job_id for owner, job_id in refs if owner == tenant}
