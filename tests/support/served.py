"""Apps under a real uvicorn, started as a page for people says."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.sidecar import START_SECONDS, STOP_SECONDS, Sidecar

DEGRADED = "no sidecar decides"
"""What the SDK logs when an answer came too late for it, as on a machine that is too busy for its
deadline: what it answers then is not exact."""

_UP = re.compile(r"Uvicorn running on (http://127\.0\.0\.1:\d+)")


class Served:
    """An app that answers.

    Attributes:
        url: where.
        log_path: what it says.
    """

    def __init__(self, url: str, log_path: Path) -> None:
        self.url = url
        self.log_path = log_path

    @property
    def log(self) -> str:
        """Everything it has said."""
        return self.log_path.read_text(errors="replace")


def environment(sidecar: Sidecar) -> dict[str, str]:
    """A terminal's, beside this sidecar: `partywall`, `python` and `uvicorn` are those of here."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PARTYW")}
    return {
        **outside,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PARTYWALL_SIDECAR_URL": sidecar.url,
        "PARTYWALL_ADMIN_TOKEN": sidecar.admin_token,
    }


def pretend_activation(directory: Path) -> None:
    """Lets `. .venv/bin/activate` do nothing there: `environment` is that of an active one."""
    (directory / ".venv" / "bin").mkdir(parents=True)
    (directory / ".venv" / "bin" / "activate").touch()


@contextmanager
def served(command: Sequence[str], directory: Path, env: dict[str, str]) -> Iterator[Served]:
    """Runs a command that ends in uvicorn, until the block ends; it must end cleanly.

    Args:
        command: with `--port 0`.
        directory: where it runs, and where its log is kept.
        env: its whole environment.
    """
    log_path = directory / "uvicorn.log"
    with log_path.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=directory,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        one = Served(_await_url(process, log_path), log_path)
        yield one
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    assert "Traceback" not in one.log, one.log


def _await_url(process: "subprocess.Popen[bytes]", log_path: Path) -> str:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        said = log_path.read_text(errors="replace")
        if up := _UP.search(said):
            return up[1]
        assert process.poll() is None, f"it ended before it was ready:\n{said}"
        time.sleep(0.02)  # another process: nothing tells us
    raise AssertionError(f"it was not ready in {START_SECONDS:.0f} s:\n{log_path.read_text()}")
