"""The tables of jobs and of queues: a line for each, however narrow the terminal is."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from itertools import pairwise
from typing import NamedTuple

from rich import box
from rich.table import Table
from rich.text import Text

from partywall_service.cli.jobs_answers import Job, Queue
from partywall_service.cli.output import cell

DEFAULT_LANE = "default"
"""Where jobs wait unless their tenant's tier names another queue."""

NUMBERS = ("Weight", "Queued", "Deferred", "Running", "Oldest", "Dead", "Claims/s")

_UNITS = (("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1))


class Reading(NamedTuple):
    """The queues at one moment.

    Attributes:
        at: when, in seconds of a clock that never goes back.
        queues: the busiest first.
    """

    at: float
    queues: list[Queue]

    @property
    def claims(self) -> Mapping[str, int]:
        """How many jobs of each tenant were ever started."""
        return {one.tenant: one.claims for one in self.queues}


def jobs_table(jobs: Sequence[Job], *, now: datetime) -> Table:
    """A line for each job; its age is the time since it was queued.

    Where there is no room functions and errors are cut, not ids: whoever wants all of an error asks
    for the job.
    """
    built = _empty_table()
    for name in ("Job", "Function", "Status", "Age", "Tries", "Error"):
        number = name in ("Age", "Tries")
        built.add_column(
            name,
            justify="right" if number else "left",
            no_wrap=number or name in ("Job", "Status"),
        )
    for job in jobs:
        age = (now - job.queued_at).total_seconds()
        first, *_ = (job.error or "-").splitlines()
        built.add_row(
            cell(job.job_id),
            _word(job.function),
            cell(job.status),
            lasting(max(age, 0)),
            f"{job.attempts:,}",
            _word(first),
        )
    return built


def queues_table(now: Reading, before: Reading | None) -> Table:
    """A line for each tenant of `now`; claims a second are those since `before`.

    A line is never two: where there is no room words are cut, not numbers. Columns of words that
    say the same of everybody are left out.
    """
    claims = before.claims if before is not None else {}
    elapsed = now.at - before.at if before is not None else 0.0
    words: dict[str, list[str | None]] = {
        "Tenant": [one.tenant for one in now.queues],
        "Tier": [one.tier for one in now.queues],
    }
    if any(one.lane != DEFAULT_LANE for one in now.queues):
        words["Lane"] = [one.lane for one in now.queues]
    if any(states := [_state(one) for one in now.queues]):
        words["State"] = states
    built = _empty_table()
    for name in words:
        built.add_column(name)
    for name in NUMBERS:
        built.add_column(name, justify="right", no_wrap=True)
    for queue, *texts in zip(now.queues, *words.values(), strict=True):
        numbers = (*_numbers(queue), _rate(queue, claims, elapsed))
        built.add_row(*map(_word, texts), *map(cell, numbers))
    return built


def summary(now: Reading) -> str:
    """All lines in one."""
    queued, running = (
        sum(getattr(one, name) for one in now.queues) for name in ("queued", "running")
    )
    return f"queues shown: {len(now.queues):,}; jobs queued: {queued:,}, running: {running:,}"


def lasting(seconds: float) -> str:
    """A length of time in its two largest units: `3m20s`."""
    left = int(seconds)
    for (name, length), (smaller, part) in pairwise(_UNITS):
        if left >= length:
            return f"{left // length}{name}{left % length // part:02}{smaller}"
    return f"{left}s"


def _empty_table() -> Table:
    return Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)


def _word(value: str | None) -> Text:
    shown = cell(value)
    shown.no_wrap, shown.overflow = True, "ellipsis"
    return shown


def _numbers(one: Queue) -> tuple[str | None, ...]:
    cap = "-" if one.concurrency is None else f"{one.concurrency:,}"
    return (
        f"{one.weight:g}",
        f"{one.queued:,}",
        f"{one.deferred:,}",
        f"{one.running:,}/{cap}",
        lasting(one.oldest_wait) if one.queued else None,
        f"{one.dead:,}",
    )


def _state(one: Queue) -> str | None:
    """Why nothing of it starts, or nothing more is taken; None when all is as ever."""
    full = one.max_queued is not None and one.queued + one.deferred >= one.max_queued
    said = ["paused" if one.paused else None, one.held, "full" if full else None]
    return ", ".join(filter(None, said)) or None


def _rate(one: Queue, claims: Mapping[str, int], elapsed: float) -> str | None:
    started = one.claims - claims.get(one.tenant, one.claims + 1)
    # Fewer than before: it was not seen then, or the queue is a new one.
    if started < 0 or elapsed <= 0:
        return None
    return f"{started / elapsed:,.1f}"
