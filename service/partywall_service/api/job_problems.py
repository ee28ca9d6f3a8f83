"""What can go wrong with jobs, as problems."""

from partywall_service.api.problems import Problem, invalid
from partywall_service.jobs.connect import NO_CLUSTER
from partywall_workers.errors import (
    InvalidJob,
    JobConflict,
    JobError,
    QueueFull,
    QueueUnavailable,
    TenantErased,
    UnknownFunction,
    UnknownJob,
)

_AWAY = "the jobs' Redis does not answer now; try again"
"""What the driver says is for the log: it names hosts."""


def job_problem_of(error: JobError) -> Problem:
    """The problem of what could not be done with a job or a queue.

    Raises:
        JobError: it is none that a request can cause.
    """
    said = _printable(str(error))
    match error:
        case QueueFull():
            return Problem("queue-full", said)
        case UnknownJob():
            return Problem("unknown-job", said)
        case JobConflict():
            return Problem("conflict", said)
        case QueueUnavailable():
            return Problem("unavailable", NO_CLUSTER if NO_CLUSTER in said else _AWAY)
        case TenantErased():
            # The directory knows the tenant, or a moment ago it did: the next try meets one truth.
            return Problem("unavailable", f"{said}; try again")
        case UnknownFunction():
            return invalid("function", said)
        case InvalidJob():
            return invalid(_printable(error.field), _printable(error.reason))
        case _:
            raise error


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()  # a reason may quote the arguments
