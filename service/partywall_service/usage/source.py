"""Where counts wait for the roll-up: the Redis of limits, and that of jobs."""

from collections.abc import AsyncIterator, Sequence
from typing import NamedTuple, Protocol


class Point(NamedTuple):
    """What one meter of one tenant came to in one minute.

    Attributes:
        tenant: its id.
        minute: minutes since the epoch, by the clock of the Redis that counted.
        meter: as `meters` has it.
        value: all of the minute so far; a count, or microseconds.
    """

    tenant: str
    minute: int
    meter: str
    value: int


class Source(Protocol):
    """Counts in one Redis. Any method raises `StoreError` where that does not answer."""

    def closed(self) -> AsyncIterator[list[Point]]:
        """Those of minutes that are over, some thousand at a time."""
        ...

    async def forget(self, points: Sequence[Point]) -> None:
        """Removes what is kept elsewhere now; of those that changed meanwhile, nothing."""
        ...

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        """All there is of these tenants, or of all, the minute that runs included."""
        ...
