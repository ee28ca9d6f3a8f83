"""Embedded servers together: locked, started, watched, stopped."""

import contextlib
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from partywall_service.embedded.errors import EmbeddedError
from partywall_service.embedded.lock import DataDirLock
from partywall_service.embedded.postgres import PostgresServer
from partywall_service.embedded.process import ServerProcess
from partywall_service.embedded.valkey import ValkeyServer

_log = structlog.get_logger(__name__)

FIRST_BACKOFF_SECONDS = 0.1
LONGEST_BACKOFF_SECONDS = 30.0
STEADY_SECONDS = 10.0
"""What lived this long starts its backoff anew."""


def backoff() -> Iterator[float]:
    """Seconds to wait before each further start of what keeps ending."""
    delay = FIRST_BACKOFF_SECONDS
    while True:
        yield delay
        delay = min(2 * delay, LONGEST_BACKOFF_SECONDS)


class _Watch:
    """Starts one server again whenever it dies."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self._stopping = threading.Event()
        self._thread = threading.Thread(
            target=self._run, name=f"watch-{server.title.lower()}", daemon=True
        )

    def start(self) -> None:
        self.server.start(self._stopping)
        self._thread.start()

    def ask_to_stop(self) -> None:
        self._stopping.set()
        self.server.ask_to_stop()

    def stop(self) -> None:
        self.ask_to_stop()
        if self._thread.is_alive():  # it may be in the middle of a start, which it then gives up
            self._thread.join()
        self.server.stop()

    def _run(self) -> None:
        delays = backoff()
        while True:
            began = time.monotonic()
            code = self.server.wait()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                delays = backoff()
            _log.warning("embedded.died", server=self.server.title, code=code)
            if not self._start_again(delays):
                return

    def _start_again(self, delays: Iterator[float]) -> bool:
        """Try until it is up; False when told to stop meanwhile."""
        while not self._stopping.wait(next(delays)):
            try:
                self.server.start(self._stopping)
            except (EmbeddedError, OSError) as exc:
                if not self._stopping.is_set():
                    _log.error("embedded.not_started", server=self.server.title, error=str(exc))
            else:
                _log.info("embedded.back", server=self.server.title)
                return not self._stopping.is_set()
        return False


class EmbeddedServers:
    """The embedded servers of one data directory, for as long as the `with` block lasts.

    Their data outlives them. A server that dies is started again, after a delay that doubles
    from 0.1 s to 30 s while it keeps dying.

    Args:
        data_dir: where their data is; made when missing.
        valkey: whether a Valkey is wanted.
        postgres: whether a PostgreSQL is wanted.
    """

    def __init__(self, data_dir: Path, *, valkey: bool = True, postgres: bool = True) -> None:
        self.data_dir = data_dir.absolute()
        self._lock = DataDirLock(self.data_dir)
        self.valkey = ValkeyServer(self.data_dir / "valkey") if valkey else None
        self.postgres = PostgresServer(self.data_dir / "postgres") if postgres else None
        self._watches: list[_Watch] = []

    @property
    def redis_url(self) -> str | None:
        """Where Valkey is, whether or not it runs; None when none is wanted."""
        return None if self.valkey is None else self.valkey.url

    @property
    def database_url(self) -> str | None:
        """Where PostgreSQL is, whether or not it runs; None when none is wanted."""
        return None if self.postgres is None else self.postgres.url

    def start(self) -> None:
        """Lock the directory, start the servers side by side, and return when they answer.

        Raises:
            DataDirBusy: another process uses the data directory.
            NotInstalled: a server's wheel is missing.
            ServerFailed: a server did not start; none is left running.
            OSError: the directory cannot be made or written to.
        """
        self.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire()
        servers = [server for server in (self.valkey, self.postgres) if server is not None]
        self._watches = [_Watch(server) for server in servers]
        try:
            _start_side_by_side(self._watches)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Stop the servers, then let go of the directory. Nothing to do the second time."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.ask_to_stop()
        with contextlib.ExitStack() as stack:
            stack.callback(self._lock.release)
            for watch in watches:
                stack.callback(watch.stop)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()


def _start_side_by_side(watches: list[_Watch]) -> None:
    """Start them at once; when all are up or have failed, raise what the first failure raised."""
    failures: list[BaseException] = []

    def run(watch: _Watch) -> None:
        try:
            watch.start()
        except BaseException as exc:  # noqa: BLE001 - raised again, in the caller's thread
            failures.append(exc)

    threads = [threading.Thread(target=run, args=(watch,)) for watch in watches]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:  # a signal's, while we waited: the starts give up, then we do
        for watch in watches:
            watch.ask_to_stop()
        for thread in threads:
            if thread.ident is not None:
                thread.join()
        raise
    if failures:
        raise failures[0]
