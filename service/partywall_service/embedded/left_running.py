"""Servers that a killed sidecar left running."""

import contextlib
import signal
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped] # it ships no types

from partywall_service.embedded.errors import ServerFailed

_POLL_SECONDS = 0.02


def clear_left_running(
    program: str, home: Path, stop_signal: signal.Signals, patience: float
) -> None:
    """End the servers that run in a directory and are nobody's now.

    No pid file is trusted, since after a crash its number may be anybody's: a process is one of
    ours when it bears the program's name and works in this very directory. The caller holds the
    directory's lock, so no living sidecar owns them.

    Args:
        program: the name of its process.
        home: the directory it works in.
        stop_signal: what asks it to end.
        patience: seconds until it is killed, and again until that is given up.

    Raises:
        ServerFailed: one of them cannot be ended.
    """
    found = _running(program, home)
    pids = {process.pid for process in found}
    # Children (PostgreSQL's) are ended by their parent, where they still have one.
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGCONT)  # a frozen one hears nothing else
            if process.ppid() not in pids:
                process.send_signal(stop_signal)
    alive = _wait_for(found, patience)
    for process in alive:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    alive = _wait_for(alive, patience)
    if alive:
        names = ", ".join(str(process.pid) for process in alive)
        raise ServerFailed(f"{program} left running in {home} cannot be ended (process {names})")


def _running(program: str, home: Path) -> list[psutil.Process]:
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, psutil.AccessDenied, OSError):
            if process.name() == program and Path(process.cwd()).samefile(home):
                found.append(process)
    return found


def _wait_for(processes: list[psutil.Process], patience: float) -> list[psutil.Process]:
    """Wait until they are gone; return those that are still there after that many seconds."""
    deadline = time.monotonic() + patience
    alive = [process for process in processes if _alive(process)]
    while alive and time.monotonic() < deadline:
        time.sleep(_POLL_SECONDS)  # they are not our children: nothing tells us
        alive = [process for process in alive if _alive(process)]
    return alive


def _alive(process: psutil.Process) -> bool:
    """Whether it still runs: in a container without an init, the dead stay as zombies."""
    try:
        return bool(process.is_running()) and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
