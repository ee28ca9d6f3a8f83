"""What goes for the jobs of a function: what it declares, else what its worker is set to."""

import json
from collections.abc import Mapping
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import Any, NamedTuple

from arq.cron import CronJob
from arq.worker import Function, Worker, func

from partywall_workers.checks import checked_function
from partywall_workers.errors import InvalidJob
from partywall_workers.failures import error_text
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


def declared(function: Any) -> Function:  # noqa: ANN401 - what arq takes
    """As arq has it, with what `@job` declares where arq's `func` was not told otherwise.

    Raises:
        InvalidJob: it is no coroutine function, nor where one is, or cannot run by its settings.
    """
    if isinstance(function, str):
        return declared(_imported(function))
    if not isinstance(function, Function):
        if not iscoroutinefunction(function):
            raise InvalidJob("functions", f"expected coroutine functions; got {function!r}")
        return declared(func(function, name=options_of(function).name))
    given = function
    checked_function(given)
    options = options_of(given.coroutine)
    return replace(
        given,
        timeout_s=options.timeout if given.timeout_s is None else given.timeout_s,
        keep_result_s=options.keep_result if given.keep_result_s is None else given.keep_result_s,
        max_tries=options.max_tries if given.max_tries is None else given.max_tries,
    )


def _imported(path: str) -> Function:
    try:
        return func(path)
    except Exception as exc:
        raise InvalidJob(
            "functions",
            "expected coroutine functions, or paths of some such as 'myapp.jobs.send_email'; got "
            f"{path!r} ({error_text(exc)})",
        ) from exc


def costs_of(functions: Mapping[str, Function | CronJob]) -> bytes:
    """Costs that are not 1, as `claim.lua` takes them."""
    costs = {name: options_of(one.coroutine).cost for name, one in functions.items()}
    return json.dumps({name: cost for name, cost in costs.items() if cost != 1}).encode()
