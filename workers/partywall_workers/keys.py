"""Every Redis key of a queue. `lua/include/keys.lua` is its twin; a test compares them.

A queue is one Redis: its scripts build the names of keys from the tenants that they come upon,
which a cluster would not allow. Everything begins with the queue's name, which is itself the sorted
set that arq keeps of unfinished jobs: arq's id of a job → the instant before which it waits.

| key | type | holds |
| --- | --- | --- |
| `Q` | zset | arq's id → run at; every unfinished job |
| `Q:active:LANE` | zset | tenant → start tag; who may start a job now |
| `Q:clock` | hash | LANE → virtual time; `:sequence`, `:fence` → the last one given |
| `Q:due` | zset | tenant → when it may next start one, where it must wait for its time |
| `Q:tenant:T` | hash | its policy (by the sidecar), its tag, what was counted |
| `Q:ready:T` | zset | job id → rank: priority, then sequence |
| `Q:deferred:T` | zset | job id → run at |
| `Q:running:T` | zset | job id → lease deadline |
| `Q:leases` | zset | T:id → lease deadline |
| `Q:job:T:ID` | hash | the job, apart from its arguments and its result |
| `Q:all:T` | zset | job id → sequence, for lists |
| `Q:kept:T` | zset | finished job id → when it is forgotten |
| `Q:dead:T` | zset | dead job id → when it is forgotten |
| `Q:starts:T` | hash | window in seconds → starts by sub-bucket |
| `Q:busy` | zset | tenant → jobs unfinished |
| `Q:tenants` | set | tenants whose policy was written |
| `Q:lanes` | set | lanes of their policies |
| `Q:ends` | zset | tenant → when its policy ends, in seconds; sidecars' own |
| `Q:wanted` | set | tenants whose policy is missing |
| `Q:keeper` | string | there while a sidecar writes policies |
| `Q:keeper:wake` | list | wakes it |
| `Q:wake:LANE` | list | wakes one worker of the lane |
| `Q:workers:LANE` | zset | worker → last seen |
| `Q:functions` | hash | function → last seen with a worker |
| `Q:counts` | hash | TIER:what → how often |
| `Q:owed` | list | quota items to give back |
| `Q:usage:T` | hash | `MINUTE|METER` → what its jobs came to |
| `Q:metered` | set | tenants that have such a hash |
| `Q:rolled` | string | newest minute taken from them; there while they are counted at all |
| `Q:gone:SHA` | string | the last start before the tenant of this SHA-1 was erased |
| `Q:answer:T:SHA` | string | the first answer to a POST; sidecars' own |

Instants are milliseconds by Redis's clock.
"""

from hashlib import sha1
from typing import NamedTuple

from arq.constants import (
    abort_jobs_ss,
    in_progress_key_prefix,
    job_key_prefix,
    result_key_prefix,
)

DEFAULT_QUEUE = "pw:jobs"
"""The queue of a sidecar that was given no key prefix."""

ABORT = abort_jobs_ss


def queue_name(prefix: str) -> str:
    """The queue of the installation whose keys begin with `prefix`."""
    return f"{prefix}:jobs"


class Keys(NamedTuple):
    """The keys of one queue."""

    queue: str

    def arq_id(self, tenant: str, job_id: str) -> str:
        """What arq calls the job; unlike `job_id` it is unique over tenants."""
        return f"{self.queue}:{tenant}:{job_id}"

    def parts(self, arq_id: str) -> tuple[str, str] | None:
        """Tenant and job id; None for a job of another queue."""
        name, ours, rest = arq_id.partition(f"{self.queue}:")
        tenant, parted, job_id = rest.partition(":")
        return (tenant, job_id) if ours and parted and not name else None

    def payload(self, tenant: str, job_id: str) -> str:
        """Function and arguments, as arq has them."""
        return job_key_prefix + self.arq_id(tenant, job_id)

    def result(self, tenant: str, job_id: str) -> str:
        """What it returned or raised, as arq has it."""
        return result_key_prefix + self.arq_id(tenant, job_id)

    def in_progress(self, tenant: str, job_id: str) -> str:
        """There while it runs."""
        return in_progress_key_prefix + self.arq_id(tenant, job_id)

    def job(self, tenant: str, job_id: str) -> str:
        """The job's hash."""
        return f"{self.queue}:job:{tenant}:{job_id}"

    def of(self, kind: str, name: str) -> str:
        """One of the keys that end in a tenant or a lane."""
        return f"{self.queue}:{kind}:{name}"

    def gone(self, tenant: str) -> str:
        """The tombstone of a tenant that was erased; it does not tell whose it is."""
        return self.of("gone", sha1(tenant.encode(), usedforsecurity=False).hexdigest())

    def one(self, kind: str) -> str:
        """One of the keys that there is one of."""
        return f"{self.queue}:{kind}"
