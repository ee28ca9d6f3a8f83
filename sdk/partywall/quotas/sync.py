"""The synchronous face of quotas: the same coroutines, whose primitives end before they return.

Hooks and counting callables so run in the caller's thread; only what they return to be awaited runs
on the client's own event loop.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Iterator, Mapping
from datetime import datetime
from types import TracebackType
from typing import Any, Literal, Protocol, Self, TypeVar

import msgspec

from partywall.quotas.hooks import CrossingHook
from partywall.quotas.methods import QuotaMethods
from partywall.quotas.reconcile import Count
from partywall.quotas.records import Drift, LedgerEntry, Preview, Quota, QuotaOutcome, Settled
from partywall.quotas.reservation import Reservation

T = TypeVar("T")


class _Run(Protocol):
    """Makes a call on the client's event loop, and waits for it."""

    def __call__(self, call: Callable[[QuotaMethods], Awaitable[T]], /) -> T: ...


class SyncReservation:
    """A `Reservation` without asyncio; in a `with`, it ends with the block."""

    def __init__(self, reservation: Reservation) -> None:
        self._reservation = reservation

    @property
    def id(self) -> str:
        """Names it."""
        return self._reservation.id

    @property
    def tenant(self) -> str:
        """Whose."""
        return self._reservation.tenant

    @property
    def items(self) -> dict[str, int]:
        """What is held, by resource."""
        return self._reservation.items

    @property
    def quotas(self) -> tuple[Quota, ...]:
        """The tenant's, as they stood when it was made."""
        return self._reservation.quotas

    @property
    def expires_at(self) -> datetime:
        """When it is given back by itself, in UTC."""
        return self._reservation.expires_at

    @property
    def status(self) -> Literal["held", "committed", "cancelled"]:
        """How this object has left it."""
        return self._reservation.status

    def commit(self, items: Mapping[str, int] | None = None, /, **amounts: int) -> Settled:
        """`Reservation.commit`."""
        return _at_once(self._reservation.commit(items, **amounts))

    def cancel(self) -> Settled:
        """`Reservation.cancel`."""
        return _at_once(self._reservation.cancel())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _at_once(self._reservation.leave(error))

    def __repr__(self) -> str:
        return f"<Sync{repr(self._reservation)[1:]}"


class SyncQuotaMethods(ABC):
    """A synchronous client's quotas: `QuotaMethods`, and nothing to await."""

    def __init__(self, on_crossing: CrossingHook | None) -> None:
        self._blocking = _Blocking(self._run, on_crossing)

    def consume(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> QuotaOutcome:
        """`Partywall.consume`."""
        return _at_once(
            self._blocking.consume(tenant, items, idempotency_key=idempotency_key, **amounts)
        )

    def try_consume(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> QuotaOutcome:
        """`Partywall.try_consume`."""
        return _at_once(
            self._blocking.try_consume(tenant, items, idempotency_key=idempotency_key, **amounts)
        )

    def release(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> QuotaOutcome:
        """`Partywall.release`."""
        return _at_once(
            self._blocking.release(tenant, items, idempotency_key=idempotency_key, **amounts)
        )

    def reserve(
        self,
        tenant: str,
        items: Mapping[str, int] | None = None,
        /,
        *,
        ttl: int = 60,
        idempotency_key: str | None = None,
        **amounts: int,
    ) -> SyncReservation:
        """`Partywall.reserve`: a reservation, for a `with` or to commit or cancel."""
        reserving = self._blocking.reserve(
            tenant, items, ttl=ttl, idempotency_key=idempotency_key, **amounts
        )
        return SyncReservation(_at_once(reserving))

    def quotas(self, tenant: str) -> list[Quota]:
        """`Partywall.quotas`."""
        return _at_once(self._blocking.quotas(tenant))

    def quota(self, tenant: str, resource: str) -> Quota:
        """`Partywall.quota`."""
        return _at_once(self._blocking.quota(tenant, resource))

    def set_quota(
        self,
        tenant: str,
        resource: str,
        used: int,
        *,
        reason: str | None = None,
        if_version: int | None = None,
        idempotency_key: str | None = None,
    ) -> Quota:
        """`Partywall.set_quota`."""
        return _at_once(
            self._blocking.set_quota(
                tenant,
                resource,
                used,
                reason=reason,
                if_version=if_version,
                idempotency_key=idempotency_key,
            )
        )

    def ledger(self, tenant: str, resource: str | None = None) -> Iterator[LedgerEntry]:
        """`Partywall.ledger`."""
        entries = self._blocking.ledger(tenant, resource)
        while True:
            try:
                entry = _at_once(anext(entries))
            except StopAsyncIteration:
                return
            yield entry

    def preview(self, tenant: str, tier: str) -> Preview:
        """`Partywall.preview`."""
        return _at_once(self._blocking.preview(tenant, tier))

    def reconcile(
        self,
        tenant: str,
        counts: Mapping[str, Count] | None = None,
        /,
        *,
        dry_run: bool = False,
        **count: Count,
    ) -> list[Drift]:
        """`Partywall.reconcile`; a callable that counts runs in this thread."""
        return _at_once(self._blocking.reconcile(tenant, counts, dry_run=dry_run, **count))

    def on_crossing(self, hook: CrossingHook) -> CrossingHook:
        """`Partywall.on_crossing`; the hook runs in the thread whose call crossed something."""
        return self._blocking.on_crossing(hook)

    @abstractmethod
    def _run(self, call: Callable[[Any], Awaitable[T]]) -> T:
        """Makes a call on the client's event loop, and waits for it."""


class _Blocking(QuotaMethods):
    """Coroutines that never suspend, since every primitive of theirs waits by blocking."""

    def __init__(self, run: _Run, on_crossing: CrossingHook | None) -> None:
        super().__init__(on_crossing)
        self._run = run

    async def _request(
        self,
        method: str,
        path: str,
        answer: msgspec.json.Decoder[T],
        query: Mapping[str, str] | None,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> T:
        return self._run(
            lambda client: client._request(  # noqa: SLF001 - its own base class's
                method, path, answer, query, body, headers
            )
        )

    async def _finish(self, awaitable: Awaitable[T]) -> T:
        return self._run(lambda _: awaitable)

    async def _sleep(self, seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - no event loop runs this


def _at_once(call: Awaitable[T]) -> T:
    """The result of a coroutine that never suspends."""
    steps = call.__await__()
    try:
        next(steps)
    except StopIteration as done:
        result: T = done.value
        return result
    raise RuntimeError(f"expected {call!r} to end at once; it waits for an event loop")
