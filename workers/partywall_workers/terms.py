"""What goes for the jobs of a function: what it declares, else what its worker is set to."""

from typing import NamedTuple

from arq.cron import CronJob
from arq.worker import Function, Worker

from partywall_workers.job import JobOptions, options_of

CRON_KEPT = 60_000
"""Milliseconds that a cron job is kept at least, so that no slower worker enqueues it again."""

FOR_EVER = 100 * 365 * 86_400_000
"""Milliseconds, for `keep_result_forever`."""


class Terms(NamedTuple):
    """What goes for the jobs of one function.

    Attributes:
        options: what `@job` declares.
        max_tries: of each job.
        timeout: seconds a try may run; None is unlimited.
        keep: milliseconds that a finished job is kept.
        keeps_result: whether its result is.
    """

    options: JobOptions
    max_tries: int
    timeout: float | None
    keep: int
    keeps_result: bool


def terms_of(worker: Worker, function: Function | CronJob | None) -> Terms:
    """What goes for a function's jobs with this worker; None: one that it does not have."""
    options = JobOptions() if function is None else options_of(function.coroutine)
    tries, timeout, keep, for_ever = None, None, None, None
    if function is not None:
        tries, timeout = function.max_tries, function.timeout_s
        keep, for_ever = function.keep_result_s, function.keep_result_forever
    if keep is None:
        keep = worker.keep_result_s or 0
    if for_ever is None:
        for_ever = worker.keep_result_forever
    kept = FOR_EVER if for_ever else round(max(0, keep) * 1000)
    return Terms(
        options,
        max_tries=worker.max_tries if tries is None else tries,
        timeout=worker.job_timeout_s if timeout is None else timeout,
        keep=max(kept, CRON_KEPT) if isinstance(function, CronJob) else kept,
        keeps_result=kept > 0,
    )
