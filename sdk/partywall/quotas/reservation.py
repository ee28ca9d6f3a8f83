"""Reservations: amounts that are held while something is made, and then consumed or given back."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, TypeVar

from partywall.errors import ConfigurationError, SidecarError
from partywall.quotas.items import amounts_of
from partywall.quotas.records import Quota, Reserved, Settled

Settle = Callable[[str, str, str, Mapping[str, int] | None], Awaitable[Settled]]
"""Ends the reservation of a tenant, by `commit` or `cancel`, with what is committed of it."""

T = TypeVar("T")

log = logging.getLogger("partywall")


class Reservation:
    """Amounts held until they are committed, cancelled, or expired.

    Attributes:
        id: names it.
        tenant: whose.
        items: what is held, by resource.
        quotas: the tenant's, as they stood when it was made.
        expires_at: when it is given back by itself, in UTC.
        status: how this object has left it; others, and time, may have ended it.
    """

    def __init__(self, settle: Settle, answer: Reserved, items: Mapping[str, int]) -> None:
        if answer.reservation is None or answer.expires_at is None:
            raise ConfigurationError("expected an answer that holds something; got a denial")
        self.id = answer.reservation
        self.tenant = answer.tenant
        self.items = dict(items)
        self.quotas: tuple[Quota, ...] = answer.quotas
        self.expires_at: datetime = answer.expires_at
        self.status: Literal["held", "committed", "cancelled"] = "held"
        self._settle = settle

    async def commit(self, items: Mapping[str, int] | None = None, /, **amounts: int) -> Settled:
        """Consumes what is held; repeating it is answered alike.

        Args:
            items: how much of it, each at most what is held; the rest goes back. Left out, all.
            amounts: more of `items`, by keyword.

        Raises:
            Conflict: it was cancelled, has expired, or was committed with other amounts.
            UnknownReservation: it is long over.
            InvalidRequest: more than is held, or no amount.
            SidecarError: there is no answer to go by: commit again, or it expires.
        """
        taken = None if items is None and not amounts else amounts_of(items, amounts)
        settled = await self._settle(self.tenant, self.id, "commit", taken)
        self.status = settled.status
        return settled

    async def cancel(self) -> Settled:
        """Gives back what is held; repeating it is answered alike, and so it is when expired.

        Raises:
            Conflict: it was committed.
            UnknownReservation: it is long over.
            SidecarError: there is no answer to go by: cancel again, or it expires.
        """
        settled = await self._settle(self.tenant, self.id, "cancel", None)
        self.status = settled.status
        return settled

    async def leave(self, error: BaseException | None) -> None:
        """Ends it with the block that it was made for, unless the block has done so itself.

        Raises:
            SidecarError: it could not be committed. (That it could not be cancelled is logged:
                it expires, and the block's own error is the one to see.)
        """
        if self.status != "held":
            return
        if error is None:
            await self.commit()
            return
        try:
            await self.cancel()
        except SidecarError as exc:
            log.warning("reservation %s of %s is left to expire: %s", self.id, self.tenant, exc)

    def __repr__(self) -> str:
        return f"<Reservation {self.id} of {self.tenant!r}, {self.status}: {self.items}>"


class Reserving:
    """What `reserve(...)` gives: await it for a `Reservation`, or enter it with `async with`."""

    def __init__(self, begin: Callable[[], Coroutine[Any, Any, Reservation]]) -> None:
        self._begin = begin
        self._reservation: Reservation | None = None

    def __await__(self) -> Generator[Any, Any, Reservation]:
        return self._begin().__await__()

    async def __aenter__(self) -> Reservation:
        self._reservation = await self
        return self._reservation

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._reservation is not None:
            await _to_its_end(self._reservation.leave(error))


async def _to_its_end(call: Coroutine[Any, Any, T]) -> T:
    """A call that is made although its caller is cancelled meanwhile: the block is over by then."""
    task = asyncio.ensure_future(call)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait([task])
        if not task.cancelled() and (failed := task.exception()) is not None:
            log.warning("a reservation could not be ended: %s", failed)
        raise
