"""Group commit: operations that gather while a transaction is under way share the next one.

The same natural batching as the engine's: no timer and no added wait. A group is one transaction;
where its outcome is unknown, because the connection broke, it is simply tried again: operations
that were committed after all are found by their ids and answered as they were.
"""

import asyncio
import time
from collections import deque
from collections.abc import Sequence

import structlog

from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.quotas.model import Operation, Outcome, refused
from partywall_service.quotas.store import QuotaStore
from partywall_service.quotas.transaction import Transaction, tenants_of

MAX_GROUP = 200
"""Operations to a transaction: a few milliseconds, so that no tenant's lock is held for longer."""

MAX_IN_FLIGHT = 2
"""Transactions at once: one being committed while the next is read."""

TRY_FOR = 5.0
"""Seconds for which a group whose outcome is unknown is tried again."""

RETRY_AFTER = 0.05
"""Seconds before the first further try; doubled each time."""

log = structlog.get_logger()

_Waiting = tuple[Operation, "asyncio.Future[Outcome]"]


class GroupCommit:
    """Commits operations to PostgreSQL, several to a transaction."""

    def __init__(self, store: QuotaStore) -> None:
        self._store = store
        self._waiting: deque[_Waiting] = deque()
        self._groups: set[asyncio.Task[None]] = set()
        self._scheduled = False

    async def commit(self, operation: Operation) -> Outcome:
        """Does an operation; what it answers is durable.

        Raises:
            LedgerUnavailable: PostgreSQL did not answer; whether the operation was done, its
                repetition under the same id tells.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Outcome] = loop.create_future()
        self._waiting.append((operation, answer))
        if not self._scheduled and len(self._groups) < MAX_IN_FLIGHT:
            self._scheduled = True
            loop.call_soon(self._start)
        return await answer

    def _start(self) -> None:
        self._scheduled = False
        while self._waiting and len(self._groups) < MAX_IN_FLIGHT:
            group = [self._waiting.popleft() for _ in range(min(MAX_GROUP, len(self._waiting)))]
            task = asyncio.get_running_loop().create_task(self._run(group))
            self._groups.add(task)
            task.add_done_callback(self._landed)

    def _landed(self, task: asyncio.Task[None]) -> None:
        self._groups.discard(task)
        self._start()

    async def _run(self, group: list[_Waiting]) -> None:
        try:
            outcomes = await self._commit([operation for operation, _ in group])
        except BaseException as exc:
            # Whatever it was, nobody may wait for ever: each who asked raises it.
            error = exc if isinstance(exc, Exception) else LedgerUnavailable("shutting down")
            for _, answer in group:
                if not answer.done():
                    answer.set_exception(error)
            if not isinstance(exc, Exception):
                raise
            return
        for (_, answer), outcome in zip(group, outcomes, strict=True):
            if not answer.done():  # its caller may have gone
                answer.set_result(outcome)

    async def _commit(self, operations: Sequence[Operation]) -> list[Outcome]:
        until = time.monotonic() + TRY_FOR
        pause = RETRY_AFTER
        unknown = False
        while True:
            try:
                async with self._store.changing(tenants_of(operations), operations) as transaction:
                    outcomes = [_done(transaction, operation) for operation in operations]
                    unknown = True  # from here to the end of the block it may have been committed
            except LedgerUnavailable as exc:
                if not unknown or time.monotonic() + pause > until:
                    raise
                log.warning("quotas.tried_again", operations=len(operations), cause=str(exc))
                await asyncio.sleep(pause)
                pause *= 2
            else:
                return outcomes


def _done(transaction: Transaction, operation: Operation) -> Outcome:
    """Does one operation of a group, or finds what it was answered before."""
    before = transaction.known.get((operation.tenant, operation.id))
    if before is not None:
        if before.fingerprint != operation.fingerprint:
            return refused("conflict", "the idempotency key was used for another request before")
        return before.outcome
    book = transaction.books[operation.tenant]
    outcome = book.apply(operation)
    if outcome.allowed or operation.kept:
        transaction.answered(operation, outcome)
    return outcome
