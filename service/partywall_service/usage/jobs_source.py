"""The counts in the Redis of jobs, as the roll-up and readers take them."""

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager

from partywall_service.engine.base import StoreError
from partywall_service.usage.source import Point
from partywall_workers.errors import QueueUnavailable
from partywall_workers.usage import JobUsage
from partywall_workers.usage import Point as JobPoint


class JobsSource:
    """A `Source` of what tenants' jobs came to.

    Args:
        usage: of the queue; there is none where jobs have no server.
    """

    def __init__(self, usage: JobUsage) -> None:
        self._usage = usage

    async def closed(self) -> AsyncIterator[list[Point]]:
        """Points of minutes that are over, in batches; a tenant's minute is never divided.

        Raises:
            StoreError: Redis did not answer.
        """
        with _telling():
            async for points in self._usage.closed():
                yield [Point(*point) for point in points]

    async def forget(self, points: Sequence[Point]) -> None:
        """Removes what is as it was.

        Raises:
            StoreError: Redis did not answer; it was done in part.
        """
        with _telling():
            await self._usage.forget([JobPoint(*point) for point in points])

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        """All there is of these tenants, or of all, the minute that runs included.

        Raises:
            StoreError: Redis did not answer.
        """
        with _telling():
            return [Point(*point) for point in await self._usage.held(tenants)]


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except QueueUnavailable as exc:
        raise StoreError(str(exc)) from exc
