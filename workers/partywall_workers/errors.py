"""What can go wrong with jobs.

    PartywallError (of the SDK)
    ├── JobError
    │   ├── QueueFull           the tenant has as many waiting jobs as its tier allows
    │   ├── UnknownFunction     no worker that is known has it
    │   ├── TenantErased        it was erased, and nobody has registered it since
    │   ├── UnknownJob          there is no such job, or it is not kept any more
    │   ├── JobConflict         the job's status does not allow it
    │   ├── InvalidJob          an argument that cannot be: an id, a priority, a delay
    │   ├── NotJson             a value that JSON cannot carry
    │   ├── TooLarge            arguments longer than a payload may be
    │   └── QueueUnavailable    Redis did not answer
    └── Instruction             raised inside a job, to say what becomes of it
        ├── GiveUp              it fails now, whatever tries are left
        └── GiveBack            as GiveUp, and its quota items go back

Where arq's callers expect one of arq's own exceptions, ours is one of those, too.
"""

from arq.jobs import SerializationError

from partywall.errors import PartywallError

__all__ = [
    "GiveBack",
    "GiveUp",
    "Instruction",
    "InvalidJob",
    "JobConflict",
    "JobError",
    "NotJson",
    "QueueFull",
    "QueueUnavailable",
    "TenantErased",
    "TooLarge",
    "UnknownFunction",
    "UnknownJob",
]


class JobError(PartywallError):
    """Anything that can go wrong with a job outside of it."""


class QueueFull(JobError):
    """The tenant has as many waiting jobs as its tier allows; nothing was queued.

    Attributes:
        tenant: whose queue.
        max_queued: its cap.
    """

    def __init__(self, tenant: str, max_queued: int) -> None:
        super().__init__(
            f"tenant {tenant!r} has {max_queued} jobs waiting, as many as it may have: try again "
            "when some have started, or purge its queue"
        )
        self.tenant = tenant
        self.max_queued = max_queued


class UnknownFunction(JobError):
    """No worker that is known has a function of this name; nothing was queued.

    Attributes:
        function: the name.
    """

    def __init__(self, function: str) -> None:
        super().__init__(
            f"no worker has a function {function!r}: expected one of those its settings list"
            " (start the workers of a new version before what enqueues for them)"
        )
        self.function = function


class TenantErased(JobError):
    """The tenant was erased; nothing was queued.

    Either no sidecar has said that it is served again, or what asks is a job that the tenant had
    before.

    Attributes:
        tenant: whose job it would have been.
    """

    def __init__(self, tenant: str) -> None:
        super().__init__(
            f"tenant {tenant!r} was erased: what is left of it can change nothing, and new jobs are"
            " taken once a sidecar knows that it is registered anew, or served by the default tier"
        )
        self.tenant = tenant


class UnknownJob(JobError):
    """The tenant has no such job, or it is not kept any more."""

    def __init__(self, tenant: str, job_id: str) -> None:
        super().__init__(f"tenant {tenant!r} has no job {job_id!r}")
        self.tenant = tenant
        self.job_id = job_id


class JobConflict(JobError):
    """The job's status does not allow what was asked; nothing was changed."""


class InvalidJob(JobError, ValueError):
    """An argument that cannot be; nothing was queued.

    Attributes:
        field: which one.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(f"{field}: {reason}")
        self.field = field
        self.reason = reason


class NotJson(InvalidJob, SerializationError):
    """A value that JSON cannot carry; the message says where in the arguments it stands."""


class TooLarge(InvalidJob):
    """Arguments longer than a payload may be."""


class QueueUnavailable(JobError):
    """Redis did not answer in time; what was asked was done or not."""


class Instruction(PartywallError):
    """Raised inside a job, to say what becomes of it."""


class GiveUp(Instruction):
    """The job fails now, whatever tries are left; its quota items stay consumed."""


class GiveBack(GiveUp):
    """The job fails now, and the quota items that were consumed for it go back."""
