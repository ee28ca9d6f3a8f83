"""All that is kept of a tenant, told line by line as JSON (https://jsonlines.org).

| `kind` | of |
| --- | --- |
| `begin` | the first line: the tenant, and when |
| `tenant`, `domain`, `override`, `token` | the register; a token without its secret |
| `quota`, `reservation`, `operation`, `ledger` | quotas, and answers kept for repetitions |
| `window`, `lease`, `redis` | the Redis of limits |
| `job_queue`, `job`, `job_debt` | the Redis of jobs (`partywall_workers.exporting`) |
| `usage` | a meter in a minute, an hour or a day |
| `neighbour`, `notice` | what it was judged, and who was told what of it |
| `audit` | what was changed of it |
| `end` | the last line: how many there were before it; without it the export was cut |
"""

from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import msgspec

from partywall_service.usage.meters import shown
from partywall_service.usage.source import Point, Source
from partywall_service.usage.spans import instant_of, minute_of

Row = dict[str, Any]

_INSTANTS = ("queued_at", "run_at", "started_at", "finished_at")
"""Of a job, in milliseconds."""

_encode = msgspec.json.Encoder().encode


class Rows(Protocol):
    """What PostgreSQL keeps; see `ledger.told.Rows`."""

    async def small(self, tenant: str) -> list[Row]:
        """Rows of the tables with a few."""
        ...

    def large(self, tenant: str) -> AsyncIterator[list[Row]]:
        """The others, a page at a time."""
        ...


class Keys(Protocol):
    """What the Redis of limits keeps; see `TenantKeys`."""

    def told(self, tenant: str) -> AsyncIterator[list[Row]]:
        """All but counts of usage, some at a time."""
        ...


class Jobs(Protocol):
    """What the Redis of jobs keeps; see `TenantJobs`."""

    def told(self, tenant: str) -> AsyncIterator[Row]:
        """All but counts of usage."""
        ...


class Export:
    """Tells of tenants.

    Args:
        rows: what PostgreSQL keeps.
        keys: what the Redis of limits keeps.
        jobs: what the Redis of jobs keeps.
        sources: where usage waits for the roll-up.
    """

    def __init__(self, rows: Rows, keys: Keys, jobs: Jobs, sources: Sequence[Source]) -> None:
        self._rows = rows
        self._keys = keys
        self._jobs = jobs
        self._sources = sources

    async def lines(self, tenant: str) -> AsyncGenerator[bytes]:
        """Its lines, some at a time, each with its end; no store is asked for much at once.

        The first come when PostgreSQL and both Redis have answered.

        Args:
            tenant: whose, registered or not.

        Raises:
            LedgerUnavailable, QueueUnavailable, StoreError: one of them did not answer.
        """
        count = 0
        async for rows in self._parts(tenant):
            count += len(rows)
            if rows:
                yield b"".join([_encode(row) + b"\n" for row in rows])
        yield _encode({"kind": "end", "lines": count}) + b"\n"

    async def _parts(self, tenant: str) -> AsyncIterator[list[Row]]:
        # Redis before PostgreSQL: what the roll-up moves meanwhile is then in both, not in none.
        held: dict[tuple[int, str], int] = {}
        for source in self._sources:
            held |= {(one.minute, one.meter): one.value for one in await source.held([tenant])}
        small = await self._rows.small(tenant)
        begin = {"kind": "begin", "tenant": tenant, "at": datetime.now(UTC)}
        yield [begin, *map(_kept, small)]
        async for row in self._jobs.told(tenant):
            yield [_job(row)]
        async for rows in self._keys.told(tenant):
            yield rows
        async for rows in self._rows.large(tenant):
            yield [told for one in rows if (told := _row(one, held)) is not None]
        yield [_usage(Point(tenant, *of_minute, value)) for of_minute, value in held.items()]


def _kept(row: Mapping[str, Any]) -> Row:
    """Without the tenant, whose the whole export is; but its own row names it."""
    if row["kind"] == "tenant":
        return dict(row)
    return {name: value for name, value in row.items() if name != "tenant"}


def _row(row: Mapping[str, Any], held: Mapping[tuple[int, str], int]) -> Row | None:
    """A row; none where Redis has what is newer."""
    told = _kept(row)
    if row["kind"] == "usage":
        if row["step"] == "minute" and (minute_of(row["start"]), row["meter"]) in held:
            return None
        told["value"] = shown(row["meter"], row["value"])
    return told


def _usage(point: Point) -> Row:
    return {
        "kind": "usage",
        "step": "minute",
        "meter": point.meter,
        "start": instant_of(point.minute),
        "value": shown(point.meter, point.value),
    }


def _job(row: Mapping[str, Any]) -> Row:
    instants = {
        name: datetime.fromtimestamp(row[name] / 1000, UTC)
        for name in _INSTANTS
        if row.get(name) is not None
    }
    return _kept({**row, **instants})
