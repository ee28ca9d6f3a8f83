"""A server as a child process: start it, know when it answers, stop it, clear what was left."""

import contextlib
import os
import pwd
import signal
import subprocess
import threading
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path

from partywall_service.embedded.errors import ServerFailed
from partywall_service.embedded.sockets import make_socket_dir

START_SECONDS = 120.0
"""A start may replay a long log after a crash; PostgreSQL says it is up only after that."""

STOP_SECONDS = 30.0
"""A server told to stop writes out what it has. After that it is killed: its log holds the rest."""

_POLL_SECONDS = 0.02


class ServerProcess(ABC):
    """One server, child of this process, with one directory of its own.

    It runs in its own session: a Ctrl-C in the terminal reaches this process alone, which
    finishes its requests first and stops the server last.

    Args:
        home: the server's directory; nothing else is in it.
        log: the file its words go to.
    """

    title: str
    """What people call it."""
    program: str
    """The name of its process."""
    stop_signal: signal.Signals
    """What asks it to write out everything and end."""

    def __init__(self, home: Path, log: Path) -> None:
        self.home = home.absolute()
        self.log = log.absolute()
        self._child: subprocess.Popen[bytes] | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients find it; the same at every start."""

    @abstractmethod
    def _socket_dir(self) -> Path:
        """Return the directory of its Unix socket."""

    @abstractmethod
    def _prepare(self) -> None:
        """Make the server's directory ready for a start."""

    @abstractmethod
    def _command(self) -> Sequence[str]:
        """Return what to run."""

    @abstractmethod
    def _answers(self) -> bool:
        """Whether it takes commands."""

    @abstractmethod
    def _settle(self) -> None:
        """Do what is left to do once it answers."""

    def _pid_files(self) -> Sequence[Path]:
        """Return the files by which it would take a stranger's process for a server of its own."""
        return ()

    def _user(self) -> int | None:
        """Return the user id to run as; None for our own."""
        return None

    def _environment(self) -> Mapping[str, str]:
        return os.environ

    @property
    def pid(self) -> int | None:
        """Its process id while it runs."""
        if self._child is None or self._child.poll() is not None:
            return None
        return self._child.pid

    def start(self, cancelled: threading.Event | None = None) -> None:
        """Start it, and return when it answers.

        A server that a killed predecessor left running in the same directory is stopped first:
        ours is then a child, whose end we learn of at once, and of the version installed now.

        Args:
            cancelled: gives up the waiting when set.

        Raises:
            ServerFailed: it ended, or did not answer in time.
            NotInstalled: its wheel is missing.
            OSError: its directory cannot be made.
        """
        command = self._command()
        self._prepare()
        # psutil comes with the wheels, and whoever has servers of their own needs neither.
        from partywall_service.embedded.left_running import clear_left_running

        clear_left_running(self.program, self.home, self.stop_signal, STOP_SECONDS)
        for path in self._pid_files():
            path.unlink(missing_ok=True)
        if self._socket_dir() != self.home:
            user = self._user()
            make_socket_dir(self._socket_dir(), os.geteuid() if user is None else user)
        self._child = child = self._spawn(command)
        try:
            self._await_answer(child, cancelled)
            self._settle()
        except BaseException:
            self.stop()
            raise

    def wait(self) -> int:
        """Block until it ends; return its exit code (negative: the signal that ended it)."""
        if self._child is None:
            raise RuntimeError(f"{self.title} was not started")
        return self._child.wait()

    def stop(self) -> None:
        """Let it write out everything and end; nothing to do when it does not run."""
        self.ask_to_stop()
        child = self._child
        if child is None:
            return
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
        self._child = None
        if self._socket_dir() != self.home:
            with contextlib.suppress(OSError):  # a killed server leaves its socket there
                self._socket_dir().rmdir()

    def ask_to_stop(self) -> None:
        """Send the signal that ends it, and do not wait."""
        child = self._child
        if child is not None and child.poll() is None:
            # A stopped (SIGSTOP) process hears nothing else first.
            child.send_signal(signal.SIGCONT)
            child.send_signal(self.stop_signal)

    def _await_answer(
        self, child: subprocess.Popen[bytes], cancelled: threading.Event | None
    ) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not self._answers():
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = child.wait(_POLL_SECONDS)
                raise ServerFailed(self._failure(f"ended with code {code}"))
            if cancelled is not None and cancelled.is_set():
                raise ServerFailed(f"{self.title} was told to stop before it was up")
            if time.monotonic() > deadline:
                raise ServerFailed(self._failure(f"did not answer in {START_SECONDS:.0f} s"))

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        user = self._user()
        descriptor = os.open(self.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            # None keeps ours: only root may name another.
            return subprocess.Popen(  # noqa: S603 - our own command
                command,
                stdin=subprocess.DEVNULL,
                stdout=descriptor,
                stderr=descriptor,
                start_new_session=True,
                cwd=self.home,
                env=dict(self._environment()),
                user=user,
                group=None if user is None else pwd.getpwuid(user).pw_gid,
                extra_groups=None if user is None else [],
            )
        except OSError as exc:
            raise ServerFailed(f"{self.title} cannot be run from {command[0]}: {exc}") from exc
        finally:
            os.close(descriptor)

    def _failure(self, what: str) -> str:
        lines = self.log.read_text(errors="replace").splitlines()[-3:]
        return f"{self.title} {what}; the last lines of {self.log}: " + " | ".join(lines)
