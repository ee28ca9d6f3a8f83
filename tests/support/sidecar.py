"""Real sidecars: `partywall serve` as a process of its own."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import httpx

from tests.support.forked import Forked, command

ADMIN_TOKEN = "pw-tests-admin-token"
START_SECONDS = 60.0
STOP_SECONDS = 30.0

QUOTAS = (Path(__file__).parents[2] / "quotas.toml").read_text()
"""The policy that ships with Partywall."""

_URL = re.compile(r"http://127\.0\.0\.1:\d+")


class SidecarDied(AssertionError):
    """It ended before it was ready; the message is its log."""


class Sidecar:
    """One `partywall serve`.

    Attributes:
        directory: its working directory, with `quotas.toml` in it.
        process: the process; a test may send it any signal.
        url: where it listens.
    """

    def __init__(
        self, directory: Path, env: Mapping[str, str], arguments: Sequence[str] = ()
    ) -> None:
        self.directory = directory
        self.quotas = directory / "quotas.toml"
        self.arguments = list(arguments)
        self.env = {
            **{name: value for name, value in os.environ.items() if not _ours(name)},
            "PARTYWALL_CONFIG": str(self.quotas),
            "PARTYWALL_PORT": "0",
            **env,
        }
        self.log_path = directory / "serve.log"
        self.url = ""
        self.process: Forked | subprocess.Popen[bytes]

    @property
    def log(self) -> str:
        """Everything it has said, its earlier starts included."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    @property
    def admin_token(self) -> str:
        """What it takes as the admin's token."""
        return self.env["PARTYWALL_ADMIN_TOKEN"]

    def start(self, *, ready: bool = True) -> None:
        """Start it, or start it again; return when `/readyz` answers 200.

        Args:
            ready: False returns at once.
        """
        self.log_path.touch()
        begin = self.log_path.stat().st_size
        self.process = self._started()
        if ready:
            self._await_ready(begin)

    def _started(self) -> "Forked | subprocess.Popen[bytes]":
        """The process: a fork; one from nothing where it starts its like, or imports otherwise."""
        imports_alike = self.env.get("PYTHONPATH") == os.environ.get("PYTHONPATH")
        if imports_alike and "--workers" not in self.arguments:
            arguments = ["serve", *self.arguments]
            log = self.log_path
            return Forked(command, arguments, cwd=self.directory, env=self.env, log=log)
        with self.log_path.open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "partywall_service", "serve", *self.arguments],
                cwd=self.directory,
                env=self.env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    def _await_ready(self, begin: int) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise SidecarDied(f"it ended with code {self.process.returncode}:\n{self.log}")
            banner = _URL.search(self.log_path.read_bytes()[begin:].decode(errors="replace"))
            if banner:
                self.url = banner[0]
                try:
                    if httpx.get(f"{self.url}/readyz", verify=False, timeout=5).status_code == 200:
                        return
                except httpx.TransportError:
                    pass
            time.sleep(0.02)  # another process: nothing tells us
        raise SidecarDied(f"it was not ready in {START_SECONDS:.0f} s:\n{self.log}")

    def refusal(self) -> str:
        """Start it where it cannot run; what it says. It must be an error, and no traceback."""
        begin = self.log_path.stat().st_size if self.log_path.exists() else 0
        self.start(ready=False)
        code = self.process.wait(START_SECONDS)
        said = self.log_path.read_bytes()[begin:].decode()
        assert code == 1, f"it ended with code {code}:\n{said}"
        assert "Traceback" not in said
        return said

    def client(self, token: str | None = None, timeout: float = 30.0) -> httpx.AsyncClient:
        """An HTTP client with the admin's token, or another."""
        return httpx.AsyncClient(
            verify=False,  # there is no TLS, and to load certificates costs 40 ms
            base_url=self.url,
            headers={"Authorization": f"Bearer {token or self.admin_token}"},
            timeout=timeout,
        )

    def stop(self, how: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and return its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        return self.process.wait(STOP_SECONDS)

    def kill(self) -> None:
        """Kill -9: it alone, not what it started."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Make sure that it is gone, whatever the test did to it."""
        if hasattr(self, "process") and self.process.poll() is None:
            self.process.send_signal(signal.SIGCONT)
            try:
                self.stop()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


def _ours(name: str) -> bool:
    return name.startswith("PARTYWALL_")
