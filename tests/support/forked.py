"""Sidecars as forks of a process that has imported everything already.

To import the service costs a second and a half of processor, three quarters of a start, and the
suite starts hundreds. What runs is the command itself, in a process and a session of its own.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path


class Forked:
    """A process, with those of `subprocess.Popen`'s methods that tests use.

    Args:
        arguments: of the command `partywall`.
        cwd: where it runs.
        env: all of its environment.
        log: where it says what it says.
    """

    def __init__(
        self, arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str], log: Path
    ) -> None:
        self.args = ["partywall", *arguments]
        self._process = _fork(self.args, str(cwd), dict(env), str(log))
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
            raise subprocess.TimeoutExpired(self.args, timeout or 0.0)
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


def _context() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["partywall_service.cli", "partywall_service.server"])
    return context


def _fork(arguments: list[str], cwd: str, env: dict[str, str], log: str) -> ForkServerProcess:
    process = _context().Process(target=_run, args=(arguments, cwd, env, log))
    process.start()
    return process


def _run(arguments: list[str], cwd: str, env: dict[str, str], log: str) -> None:
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(env)
    for name, flags, target in (
        (os.devnull, os.O_RDONLY, (0,)),
        (log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, (1, 2)),
    ):
        opened = os.open(name, flags, 0o600)
        for number in target:
            os.dup2(opened, number)
        os.close(opened)
    # The server that forked us may have set up streams on the descriptors it was started with.
    sys.stdin = open(0)  # noqa: SIM115 - for as long as the process lasts
    sys.stdout = open(1, "w", buffering=1)  # noqa: SIM115 - as above
    sys.stderr = open(2, "w", buffering=1)  # noqa: SIM115 - as above
    sys.argv = arguments
    from partywall_service.__main__ import main

    main()
