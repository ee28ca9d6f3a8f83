"""Puts many tenants to a sidecar, several at a time."""

import asyncio
import random
from collections.abc import Callable, Sequence

import httpx

from partywall_service.cli.client import REFUSALS, Sidecar, path_of, problem_of
from partywall_service.cli.tenants_file import Row

IN_FLIGHT = 32
"""Requests at once: enough to keep a sidecar's database connections busy, and no flood."""

TRIES = 5
"""Of a line that the sidecar cannot take now. The pauses double: 15 to 22 s of Retry-After: 1."""

LONGEST_PAUSE = 10.0
"""Seconds between two tries, before jitter, whatever Retry-After says."""

_JSON = {"Content-Type": "application/json"}


class TenantsPut:
    """One import, and how far it is.

    Attributes:
        rows: what to put.
        created: how many were new.
        updated: how many were there; also those with nothing to change.
        refused: what the sidecar does not take, each with its sentence.
    """

    def __init__(self, sidecar: Sidecar, rows: Sequence[Row]) -> None:
        self.rows = rows
        self.created = 0
        self.updated = 0
        self.refused: list[tuple[Row, str]] = []
        self._sidecar = sidecar

    @property
    def so_far(self) -> str:
        """How much of it is done, for when it ends early."""
        done = self.created + self.updated
        return f"{done:,} of {len(self.rows):,} tenants were imported, and it may be run again"

    async def run(self, advance: Callable[[], None]) -> None:
        """Puts every row; calls `advance` as each is done or refused.

        A conflict is tried again when all else is done: another line may have given the domain
        free, and with several lines at a time their order in the file decides nothing.

        Raises:
            CliError: the sidecar cannot be reached, or takes no line at all.
        """
        waiting = self.rows
        while waiting:
            conflicts = await self._put_all(waiting, advance)
            if len(conflicts) == len(waiting):
                self.refused += conflicts
                for _ in conflicts:
                    advance()
                return
            waiting = [row for row, _ in conflicts]

    async def _put_all(
        self, rows: Sequence[Row], advance: Callable[[], None]
    ) -> list[tuple[Row, str]]:
        """Puts `rows`; returns those in conflict."""
        conflicts: list[tuple[Row, str]] = []
        rest = iter(rows)

        async def work() -> None:
            # A connection of its own: httpx's pool looks at every other one for each request.
            async with self._sidecar.connection() as http:
                for row in rest:  # one iterator for all: each takes the next
                    response = await self._put(http, row)
                    said = problem_of(response) if response.status_code in REFUSALS else None
                    if said is None:
                        self._count(response)
                    elif response.status_code == 409:
                        conflicts.append((row, said))
                        continue
                    else:
                        self.refused.append((row, said))
                    advance()

        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(min(IN_FLIGHT, len(rows))):
                    group.create_task(work())
        except ExceptionGroup as several:  # all for one cause
            raise several.exceptions[0] from None
        return conflicts

    async def _put(self, http: httpx.AsyncClient, row: Row) -> httpx.Response:
        """The sidecar's answer; a 503 only after `TRIES`."""
        tries = 1
        while True:
            with self._sidecar.telling():
                response = await http.put(
                    path_of("tenants", row.tenant), content=row.change, headers=_JSON
                )
            after = response.headers.get("Retry-After")
            if response.status_code != 503 or after is None or tries == TRIES:
                return response
            await asyncio.sleep(_pause(after, tries))
            tries += 1

    def _count(self, response: httpx.Response) -> None:
        self._sidecar.text(self._sidecar.object_of(self._sidecar.checked(response)), "tenant")
        if response.status_code == 201:
            self.created += 1
        else:
            self.updated += 1


def _pause(after: str, tries: int) -> float:
    """Seconds to wait; jitter, so that all that were refused together do not come together."""
    seconds = float(after) if after.isdecimal() else 1.0  # else it is a date, of another's clock
    return min(seconds * (1 << tries - 1), LONGEST_PAUSE) * random.uniform(1, 1.5)  # noqa: S311 - no secret
