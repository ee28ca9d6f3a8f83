"""Sidecars, hosts and workers as forks of a process that has imported everything already.

To import the service costs a second and a half of processor, three quarters of a start, and the
suite starts hundreds. What runs is the command itself, in a process and a session of its own.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from pathlib import Path

CONTEXT: ForkServerContext = multiprocessing.get_context("forkserver")
"""A process has one fork server, so whoever forks in the tests does it with this."""

CONTEXT.set_forkserver_preload(
    [
        "partywall_service.cli",
        "partywall_service.server",
        "tests.support.host_app",
        "tests.support.job_worker",
    ]
)


class Forked:
    """A process, with those of `subprocess.Popen`'s methods that tests use.

    Args:
        target: what it runs.
        arguments: of that; a socket among them is the process's too.
        cwd: where it runs.
        env: all of its environment.
        log: where it says what it says.
    """

    def __init__(
        self,
        target: Callable[..., None],
        *arguments: object,
        cwd: Path,
        env: Mapping[str, str],
        log: Path,
    ) -> None:
        self._process = CONTEXT.Process(
            target=_run, args=(target, arguments, str(cwd), dict(env), str(log))
        )
        self._process.start()
        pid = self._process.pid
        assert pid is not None
        self.pid = pid

    @property
    def returncode(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.exitcode

    def poll(self) -> int | None:
        """The same."""
        return self._process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Its exit code, once it has ended."""
        self._process.join(timeout)
        code = self._process.exitcode
        if code is None:
            raise subprocess.TimeoutExpired(self._process.name, timeout or 0.0)
        return code

    def send_signal(self, how: int) -> None:
        """Sends it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, how)

    def terminate(self) -> None:
        """SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL."""
        self.send_signal(signal.SIGKILL)


def command(arguments: Sequence[str]) -> None:
    """The command `partywall`, to fork."""
    sys.argv = ["partywall", *arguments]
    from partywall_service.__main__ import main

    main()


def _run(
    target: Callable[..., None],
    arguments: tuple[object, ...],
    cwd: str,
    env: dict[str, str],
    log: str,
) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for name, flags, descriptors in (
        (os.devnull, os.O_RDONLY, (0,)),
        (log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, (1, 2)),
    ):
        opened = os.open(name, flags, 0o600)
        for number in descriptors:
            os.dup2(opened, number)
        os.close(opened)
    # The server that forked us may have set up streams on the descriptors it was started with.
    sys.stdin = open(0)  # noqa: SIM115 - for as long as the process lasts
    sys.stdout = open(1, "w", buffering=1)  # noqa: SIM115 - as above
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115 - as above
    target(*arguments)
