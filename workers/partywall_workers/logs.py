"""Which job a line of the log is about."""

import logging
from contextvars import ContextVar
from typing import NamedTuple

from partywall.context import current_tenant


class Start(NamedTuple):
    """The start of a job.

    Attributes:
        queue: in which it is.
        tenant: whose.
        job_id: its id among its tenant's.
        fence: the number of this start.
    """

    queue: str
    tenant: str
    job_id: str
    fence: int


current_start: ContextVar[Start] = ContextVar("partywall.job")
"""Of the job that runs here."""


class JobContextFilter(logging.Filter):
    """Gives every record `tenant` and `job_id`: those of the job in which it was logged, or None.

    For handlers, whose filters see the records of all loggers. What a record has already stays: it
    may come through a queue, in whose thread no job runs.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets the record pass."""
        if not hasattr(record, "tenant"):
            tenant = current_tenant(default=None)
            record.tenant = None if tenant is None else tenant.id
        if not hasattr(record, "job_id"):
            start = current_start.get(None)
            record.job_id = None if start is None else start.job_id
        return True
