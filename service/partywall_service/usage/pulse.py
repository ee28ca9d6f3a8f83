"""How much is decided now, of all tenants together: counted by maintenance, read by the overview.

To count it costs as much as a judgement does; to read it is one row.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Protocol

from sqlalchemy import select
from sqlalchemy.dialects.postgresql import insert as upsert

from partywall_service.ledger.base import Store
from partywall_service.ledger.tables import usage_state
from partywall_service.usage.verdict import Neighbour

WINDOW = timedelta(minutes=5)
"""Over which it is counted; the minute that runs is a part of it."""

_NAME = "pulse"


@dataclass(frozen=True, slots=True)
class Pulse:
    """Decisions of all limits of all tenants.

    Attributes:
        at: when they were counted, UTC.
        seconds: over how long.
        requests: decisions.
        denied: those of them that were denied.
        tenants: who asked for any.
    """

    at: datetime
    seconds: float
    requests: int
    denied: int
    tenants: int

    @property
    def rate(self) -> float:
        """Decisions a second."""
        return self.requests / self.seconds

    @property
    def denied_share(self) -> float:
        """The part of them that was denied, from 0 to 1."""
        return self.denied / self.requests if self.requests else 0.0


class Judge(Protocol):
    """Who knows what each tenant did lately (`Neighbours`)."""

    async def judge(self, window: timedelta) -> Sequence[Neighbour]:
        """Everyone active in so many whole minutes, the one that runs included."""
        ...


async def count(judge: Judge) -> Pulse:
    """The pulse as it is now.

    Raises:
        LedgerUnavailable: PostgreSQL did not answer.
        StoreError: Redis did not answer.
    """
    active = await judge.judge(WINDOW)
    now = datetime.now(UTC)
    # Of the minute that runs there is but a part.
    seconds = WINDOW.total_seconds() - 60 + now.second + now.microsecond / 1e6
    return Pulse(
        now,
        seconds,
        sum(one.requests for one in active),
        sum(one.denied for one in active),
        sum(one.requests > 0 for one in active),
    )


class PulseStore(Store):
    """Keeps the last one."""

    async def write(self, pulse: Pulse) -> None:
        """In place of the one before.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        value = json.dumps(
            [pulse.at.isoformat(), pulse.seconds, pulse.requests, pulse.denied, pulse.tenants]
        )
        row = upsert(usage_state).values(name=_NAME, value=value)
        async with self._changing() as connection:
            await connection.execute(
                row.on_conflict_do_update(
                    index_elements=usage_state.primary_key, set_={"value": value}
                )
            )

    async def read(self) -> Pulse | None:
        """The last one; None before the first.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer.
        """
        query = select(usage_state.c.value).where(usage_state.c.name == _NAME)
        async with self._reading() as connection:
            value = await connection.scalar(query)
        if value is None:
            return None
        at, *numbers = json.loads(value)
        return Pulse(datetime.fromisoformat(at), *numbers)
