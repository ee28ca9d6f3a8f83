"""A source of usage that is a list."""

from collections.abc import AsyncIterator, Iterable, Sequence

from partywall_service.usage.source import Point


class HeldPoints:
    """What a Redis would hold."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.points = list(points)

    async def closed(self) -> AsyncIterator[list[Point]]:
        """All of it."""
        yield list(self.points)

    async def forget(self, points: Sequence[Point]) -> None:
        """Removes what is still as it was."""
        self.points = [one for one in self.points if one not in points]

    async def held(self, tenants: Sequence[str] | None = None) -> list[Point]:
        """Of these tenants, or all."""
        return [one for one in self.points if tenants is None or one.tenant in tenants]
