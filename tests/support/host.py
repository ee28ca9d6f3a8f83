"""Host apps (`tests.support.host_app`), each a process of its own."""

import os
import signal
import socket
import subprocess
import time
from bisect import bisect_left, insort
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import httpx

from tests.support.forked import Forked
from tests.support.host_app import serve

START_SECONDS = 60.0
STOP_SECONDS = 30.0


class Admitted(NamedTuple):
    """One admitted request: it was decided at some moment from `since` to `ran`, when it ran.

    Times are of the machine's monotonic clock. `since` is the beginning of a turn of the host's
    event loop: a process that the machine did not let run is not taken for one that spends late.
    """

    limit: str
    cost: int
    degraded: bool
    since: float
    ran: float


class Host:
    """One host app. Its listening socket is this process's, so its URL outlives it.

    Who connects while it is down waits until it is there again.

    Attributes:
        url: where it listens.
        port: the same.
        process: the process; a test may send it any signal.
    """

    def __init__(self, directory: Path, sidecar_url: str, token: str, **options: object) -> None:
        self._directory = directory
        self._options = options
        self._env = {
            **{name: value for name, value in os.environ.items() if not _ours(name)},
            "PARTYWALL_SIDECAR_URL": sidecar_url,
            "PARTYWALL_TOKEN": token,
        }
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
        self.port: int = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: Forked | None = None

    @property
    def log(self) -> str:
        """Everything it has said, its earlier starts included."""
        path = self._directory / "host.log"
        return path.read_text(errors="replace") if path.exists() else ""

    @property
    def admitted(self) -> dict[str, list[Admitted]]:
        """The requests that its handler ran, by tenant, its earlier starts' included."""
        path = self._directory / "admitted"
        found: dict[str, list[Admitted]] = {}
        for line in path.read_text().splitlines() if path.exists() else ():
            tenant, limit, cost, degraded, since, ran = line.split()
            one = Admitted(limit, int(cost), degraded == "1", float(since), float(ran))
            found.setdefault(tenant, []).append(one)
        return found

    def start(self, *, ready: bool = True) -> None:
        """Start it, or start it again; return when it answers.

        Args:
            ready: False returns at once.
        """
        self.process = Forked(
            serve,
            self._listener,
            str(self._directory / "admitted"),
            self._options,
            cwd=self._directory,
            env=self._env,
            log=self._directory / "host.log",
        )
        if ready:
            self.await_ready()

    def await_ready(self) -> None:
        """Return when it answers."""
        assert self.process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            assert self.process.poll() is None, f"it ended before it was ready:\n{self.log}"
            try:
                # It waits in the socket's queue until somebody is there to answer it.
                if httpx.get(f"{self.url}/nobody", verify=False, timeout=1).status_code == 200:
                    return
            except httpx.TransportError:
                continue
        raise AssertionError(f"it was not ready in {START_SECONDS:.0f} s:\n{self.log}")

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill -9."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Make sure that it is gone, whatever the test did to it."""
        self._listener.close()
        if self.process is not None and self.process.poll() is None:
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.kill()
                raise


def admitted_by(hosts: Iterable[Host], tenant: str, limit: str) -> list[Admitted]:
    """A tenant's requests, charged to one limit, that some host's handler ran."""
    return [one for host in hosts for one in host.admitted.get(tenant, ()) if one.limit == limit]


def heaviest(admitted: Iterable[Admitted], window: float) -> int:
    """The largest cost that was surely admitted in one interval of this length."""
    most = 0
    # From the last to the first, so that all that is in `later` began at or after each beginning;
    # the latest come first in it.
    later: list[tuple[float, int]] = []
    for one in sorted(admitted, key=lambda one: -one.since):
        insort(later, (-one.ran, one.cost))
        inside = bisect_left(later, (-one.since - window, 0))
        most = max(most, sum(cost for _, cost in later[inside:]))
    return most


def _ours(name: str) -> bool:
    return name.startswith("PARTYWALL_") or name == "PYTHONPATH"
