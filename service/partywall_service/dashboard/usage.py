"""Usage as charts and tables show it: a range, its steps, and one column of numbers a series."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal

from partywall_service.dashboard import formats
from partywall_service.policy.model import Quota, Resource
from partywall_service.usage import meters
from partywall_service.usage.reading import UsagePoint
from partywall_service.usage.spans import Step

RangeName = Literal["1h", "24h", "30d"]


@dataclass(frozen=True, slots=True)
class Range:
    """How far back, in which steps. The last step is the one that runs.

    Attributes:
        name: as addresses have it.
        title: for people.
        step: of its points.
        length: of a step.
        count: of steps.
        label: how a step's start is written, for `strftime`.
    """

    name: RangeName
    title: str
    step: Step
    length: timedelta
    count: int
    label: str

    def starts(self, now: datetime) -> list[datetime]:
        """Where each of its steps begins, oldest first, in UTC."""
        at = now.astimezone(UTC).replace(second=0, microsecond=0)
        if self.step != "minute":
            at = at.replace(minute=0)
        if self.step == "day":
            at = at.replace(hour=0)
        return [at - self.length * back for back in reversed(range(self.count))]


RANGES: Mapping[str, Range] = {
    one.name: one
    for one in (
        Range("1h", "last hour", "minute", timedelta(minutes=1), 60, "%H:%M"),
        Range("24h", "last 24 hours", "hour", timedelta(hours=1), 24, "%H:%M"),
        Range("30d", "last 30 days", "day", timedelta(days=1), 30, "%b %d"),
    )
}


@dataclass(frozen=True, slots=True)
class Series:
    """One line or colour of a chart.

    Attributes:
        title: for people.
        values: one a step; None where nothing is known.
        table_only: kept out of the chart, as its values are part of another series.
    """

    title: str
    values: tuple[float | None, ...]
    table_only: bool = False

    @property
    def total(self) -> float:
        """Of all steps."""
        return sum(value or 0 for value in self.values)


@dataclass(frozen=True, slots=True)
class Chart:
    """What one picture and its table show.

    Attributes:
        name: as addresses have it.
        stacked: whether the series add up; else each is a line.
        steps: where each step begins.
        range: of which.
        series: what is shown.
        say: writes a value.
        summary: one sentence for who does not see the picture.
    """

    name: str
    stacked: bool
    steps: tuple[datetime, ...]
    range: Range
    series: tuple[Series, ...]
    say: Callable[[float], str]
    summary: str

    @property
    def title(self) -> str:
        """For people."""
        return TITLES[self.name]

    @property
    def labels(self) -> list[str]:
        """Of the steps."""
        return [start.strftime(self.range.label) for start in self.steps]


TITLES: Mapping[str, str] = {
    "decisions": "Decisions of limits",
    "requests": "Requests by status",
    "jobs": "Jobs that ended",
    "time": "Time spent",
    "quotas": "Quotas in percent of their limits",
}
"""The charts there are."""


def charts(
    points: Sequence[UsagePoint],
    steps: Sequence[datetime],
    over: Range,
    quotas: Mapping[str, Quota],
    resources: Mapping[str, Resource],
) -> list[Chart]:
    """All charts, those of which nothing was counted without any series.

    Args:
        points: of one tenant.
        steps: of the range.
        over: the range.
        quotas: the tenant's, for levels in percent of them.
        resources: of the policy.
    """
    found = _Columns(points, steps)
    percents = _percents(found, quotas, resources)
    last = ", ".join(f"{one.title} {_percent(one.values[-1] or 0)}" for one in percents)
    made = (
        ("decisions", _sums(found, _DECISIONS), formats.number, True),
        ("requests", _sums(found, _REQUESTS), formats.number, True),
        ("jobs", _sums(found, _JOBS), formats.number, True),
        ("time", _sums(found, _TIMES), formats.duration, False),
    )
    return [
        *(
            Chart(name, stacked, found.steps, over, series, say, _summary(over, series, say))
            for name, series, say, stacked in made
        ),
        Chart("quotas", False, found.steps, over, percents, _percent, f"Now: {last}."),
    ]


class _Columns:
    """Points by meter, each as a column of one value a step."""

    def __init__(self, points: Sequence[UsagePoint], steps: Sequence[datetime]) -> None:
        self.steps = tuple(steps)
        place = {start: number for number, start in enumerate(steps)}
        self._columns: dict[str, list[float | None]] = {}
        for point in points:
            if (at := place.get(point.start)) is not None:
                column = self._columns.setdefault(point.meter, [None] * len(steps))
                column[at] = meters.shown(point.meter, point.value)

    def named(self, fits: Callable[[str], bool]) -> dict[str, tuple[float | None, ...]]:
        """The columns of meters that fit, by meter."""
        return {name: tuple(column) for name, column in self._columns.items() if fits(name)}

    def summed(self, fits: Callable[[str], bool]) -> tuple[float | None, ...]:
        """The columns of meters that fit, added up; nothing counted is 0."""
        columns = self.named(fits).values()
        return tuple(sum(value or 0 for value in row) for row in zip(*columns, strict=True)) or (
            (0,) * len(self.steps)
        )


_Shown = tuple[str, Callable[[str], bool], bool]
"""A series' title, its meters, and whether only the table has it."""


def _limits(outcome: str) -> Callable[[str], bool]:
    return lambda meter: meter.startswith("limits.") and meter.endswith(f".{outcome}")


def _exactly(meter: str) -> Callable[[str], bool]:
    return lambda other: other == meter


_DECISIONS: Sequence[_Shown] = (
    ("admitted", _limits("admitted"), False),
    ("denied", _limits("denied"), False),
    ("would be denied", _limits("would_deny"), False),
    ("of these, degraded", _limits("degraded"), True),
)
_REQUESTS: Sequence[_Shown] = tuple(
    (status, _exactly(f"requests.{status}"), False) for status in meters.STATUS_CLASSES
)
_JOBS: Sequence[_Shown] = (
    ("succeeded", _exactly("jobs.succeeded"), False),
    ("failed", _exactly("jobs.failed"), False),
    ("started", _exactly("jobs.started"), True),
)
_TIMES: Sequence[_Shown] = (
    ("requests in flight", _exactly(meters.IN_FLIGHT), False),
    ("jobs running", _exactly("jobs.run_seconds"), False),
    ("jobs waiting", _exactly("jobs.wait_seconds"), False),
)


def _sums(found: _Columns, wanted: Sequence[_Shown]) -> tuple[Series, ...]:
    """All series that the chart has, so that each keeps its colour; none where all are 0."""
    made = [Series(title, found.summed(fits), only) for title, fits, only in wanted]
    if not any(one.total for one in made):
        return ()
    return tuple(one for one in made if one.total or not one.table_only)


def _summary(over: Range, series: Sequence[Series], say: Callable[[float], str]) -> str:
    said = ", ".join(f"{one.title} {say(one.total)}" for one in series if one.total)
    return f"In the {over.title}: {said}."


def _percents(
    found: _Columns, quotas: Mapping[str, Quota], resources: Mapping[str, Resource]
) -> tuple[Series, ...]:
    """Levels as percents of the limits of now, since one picture cannot hold bytes and users."""
    series = []
    for meter, column in sorted(found.named(meters.is_level).items()):
        resource = meter.removeprefix("quotas.").removesuffix(".used")
        quota = quotas.get(resource)
        if resource in resources and quota is not None and quota.limit:
            values = (None if one is None else 100 * one / quota.limit for one in column)
            series.append(Series(resource, tuple(values)))
    return tuple(series)


def _percent(value: float) -> str:
    return formats.percent(value / 100)
