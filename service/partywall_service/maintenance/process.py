"""`serve --with-worker`: the maintenance worker as a child of the sidecar."""

import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Self

import structlog

from partywall_service.embedded.supervisor import STEADY_SECONDS, backoff

STOP_SECONDS = 30.0
"""A worker told to stop finishes its jobs, each a short statement. After that it is killed: its
leases run out, and whoever maintains next does them again."""

log = structlog.get_logger()


class WorkerProcess:
    """`partywall worker`, for as long as the `with` block lasts.

    It is started again when it ends, after a delay that doubles from 0.1 s to 30 s while it keeps
    ending. It runs in a session of its own, so that a terminal's Ctrl-C reaches it through us; and
    it ends when its standard input does, so that it does not outlive us however we end.

    Args:
        environment: what its settings come from.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._stopping = threading.Event()
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self._thread = threading.Thread(target=self._keep_alive, name="watch-worker", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._stopping.set()
            child = self._child
        if child is not None:
            child.terminate()
            try:
                child.wait(STOP_SECONDS)
            except subprocess.TimeoutExpired:
                log.warning("worker.killed", waited=STOP_SECONDS)
                child.kill()
        self._thread.join()

    def _keep_alive(self) -> None:
        delays = backoff()
        while not self._stopping.is_set():
            began = time.monotonic()
            code = self._run()
            if self._stopping.is_set():
                return
            if time.monotonic() - began > STEADY_SECONDS:
                delays = backoff()
            delay = next(delays)
            log.warning("worker.died", code=code, again_in=delay)
            self._stopping.wait(delay)

    def _run(self) -> int | None:
        """Starts it, and waits until it ends; its exit code, or None if it cannot be started."""
        with self._lock:
            if self._stopping.is_set():  # nobody would end it
                return None
            try:
                self._child = child = subprocess.Popen(
                    [sys.executable, "-m", "partywall_service", "worker", "--follow-stdin"],
                    stdin=subprocess.PIPE,
                    env=self._environment,
                    start_new_session=True,
                )
            except OSError as exc:
                log.warning("worker.not_started", cause=str(exc))
                return None
        with child:  # closes our end of its standard input
            return child.wait()
