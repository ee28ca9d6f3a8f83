"""Which job a line of the log is about."""

import logging
from contextvars import ContextVar

from partywall.context import current_tenant

current_job: ContextVar[str] = ContextVar("partywall.job")
"""The id of the job that runs here, among its tenant's."""


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
            record.job_id = current_job.get(None)
        return True
