"""The synchronous face of the client: the same calls, made on an event loop in a thread of its own.

There is no second client behind it, so a check answered from a permit in hand costs two switches of
threads more than in `Partywall`, and nothing else is different.
"""

import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx

from partywall.client import Partywall
from partywall.decision import Decision
from partywall.errors import PartywallError
from partywall.jobs.sync import SyncJobMethods
from partywall.outage import OnOutage
from partywall.quotas.hooks import CrossingHook
from partywall.quotas.sync import SyncQuotaMethods
from partywall.records import CheckLike, Status, TenantRecord

T = TypeVar("T")

log = logging.getLogger("partywall")


class SyncPartywall(SyncQuotaMethods, SyncJobMethods):
    """A sidecar's client for code without an event loop; close it, or use it in a `with`.

    For any number of threads. Its own thread starts at the first use, does not keep the process
    alive, and gives unspent permits back when the interpreter ends. After a fork the child has one
    of its own.

    Args:
        sidecar: as for `Partywall`, with all that follow.
        token: see there.
        deadline: see there.
        timeout: see there.
        on_outage: see there.
        transport: see there.
        on_crossing: see there.

    Raises:
        ConfigurationError: an argument cannot be. What the environment lacks shows at the first
            use, or on entering the `with`.
    """

    def __init__(
        self,
        sidecar: str | None = None,
        token: str | None = None,
        *,
        deadline: float = 0.25,
        timeout: float = 10.0,
        on_outage: OnOutage = "local",
        transport: httpx.AsyncBaseTransport | None = None,
        on_crossing: CrossingHook | None = None,
    ) -> None:
        super().__init__(on_crossing)
        self._client = Partywall(
            sidecar,
            token,
            deadline=deadline,
            timeout=timeout,
            on_outage=on_outage,
            transport=transport,
        )
        self._lock = threading.Lock()
        self._thread: _LoopThread | None = None
        _living.add(self)

    def __enter__(self) -> Self:
        try:
            self._run(lambda client: client.__aenter__())
        except BaseException:
            self.close()  # a `with` that is not entered is not left, either
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Waits for the calls under way, gives back unspent permits and ends the thread."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.end()

    def check(
        self, tenant: str, limit: str = "requests", *, cost: int = 1, dry_run: bool = False
    ) -> Decision:
        """`Partywall.check`."""
        return self._run(lambda client: client.check(tenant, limit, cost=cost, dry_run=dry_run))

    def check_many(self, checks: Iterable[CheckLike]) -> list[Decision]:
        """`Partywall.check_many`."""
        # Read here: the caller's generator may itself use this client.
        asked = list(checks)
        return self._run(lambda client: client.check_many(asked))

    def get_tenant(self, tenant: str) -> TenantRecord:
        """`Partywall.get_tenant`."""
        return self._run(lambda client: client.get_tenant(tenant))

    def put_tenant(
        self,
        tenant: str,
        *,
        tier: str,
        name: str | None = None,
        domains: Sequence[str] | None = None,
        status: Status | None = None,
    ) -> TenantRecord:
        """`Partywall.put_tenant`."""
        return self._run(
            lambda client: client.put_tenant(
                tenant, tier=tier, name=name, domains=domains, status=status
            )
        )

    def tenant_of_domain(self, domain: str) -> str | None:
        """`Partywall.tenant_of_domain`."""
        return self._run(lambda client: client.tenant_of_domain(domain))

    def _run(self, call: Callable[[Partywall], Awaitable[T]]) -> T:
        with self._lock:
            if self._thread is None:
                self._thread = _LoopThread(self._client)
            thread = self._thread
            future = thread.submit(call)
        try:
            return future.result()
        except BaseException:
            future.cancel()  # a Ctrl-C here must not leave the call running there
            raise

    def _forked(self) -> None:
        """In the child of a fork, where the thread is not: another may have held the lock, too."""
        if self._thread is not None:
            # Kept for ever: what would tidy up after it would do so to the parent's selector.
            _parents.append(self._thread)
        self._lock = threading.Lock()
        self._thread = None


class _LoopThread:
    """An event loop in a thread, with the client that lives on it."""

    def __init__(self, client: Partywall) -> None:
        self._client = client
        self._calls: set[asyncio.Task[Any]] = set()
        self._ended = asyncio.Event()
        self._started: Future[asyncio.AbstractEventLoop] = Future()
        self._thread = threading.Thread(target=self._main, name="partywall", daemon=True)
        self._thread.start()
        self._loop = self._started.result()

    def submit(self, call: Callable[[Partywall], Awaitable[T]]) -> "Future[T]":
        """Makes a call on the loop.

        Raises:
            RuntimeError: this is that loop's own thread, which would wait for itself.
        """
        self._refuse_own_thread()
        return asyncio.run_coroutine_threadsafe(self._answer(call), self._loop)

    def end(self) -> None:
        """Lets the calls under way finish, closes the client and waits for the thread.

        Raises:
            RuntimeError: as above.
        """
        self._refuse_own_thread()
        try:
            asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        finally:
            self._thread.join()

    def _refuse_own_thread(self) -> None:
        if threading.current_thread() is self._thread:
            raise RuntimeError("a SyncPartywall cannot be used on the event loop that it runs on")

    def _main(self) -> None:
        # Not asyncio.run(): that starts a thread to end the loop's executor, and at the end of the
        # interpreter none may be started.
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(self._live())
        finally:
            loop.close()

    async def _live(self) -> None:
        self._started.set_result(asyncio.get_running_loop())
        await self._ended.wait()

    async def _close(self) -> None:
        try:
            if self._calls:
                await asyncio.wait(self._calls)
            await self._client.aclose()
        finally:
            self._ended.set()

    async def _answer(self, call: Callable[[Partywall], Awaitable[T]]) -> T:
        task = asyncio.current_task()
        if task is not None:
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)
        return await call(self._client)


_living: "weakref.WeakSet[SyncPartywall]" = weakref.WeakSet()
_parents: list[Any] = []


def _after_fork() -> None:
    for client in list(_living):
        client._forked()  # noqa: SLF001 - this module's own


def _at_exit() -> None:
    for client in list(_living):
        try:
            client.close()
        except (PartywallError, RuntimeError) as exc:
            # The interpreter no longer starts threads, of which a new connection may need one.
            log.debug("unspent permits could not be given back at exit: %s", exc)


if hasattr(os, "register_at_fork"):  # not on Windows, where nothing forks
    os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
