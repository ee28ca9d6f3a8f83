"""What runs on this machine, and waiting for it to change."""

import random
import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import psutil

T = TypeVar("T")

SERVERS = ("valkey-server", "postgres")


def eventually(ask: Callable[[], T], *errors: type[Exception], seconds: float = 20) -> T:
    """What `ask` gives as soon as it gives something true without one of `errors`."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if answer := ask():
                return answer
        except errors:
            if time.monotonic() > deadline:
                raise
        assert time.monotonic() < deadline, "it never came to be"
        time.sleep(0.02)


def server_processes(directory: Path) -> list[psutil.Process]:
    """The embedded servers' processes that work below a directory."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.name() in SERVERS and Path(process.cwd()).is_relative_to(directory):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def serving_in(directory: Path) -> dict[str, int]:
    """How many servers (their children aside) work below a directory, by program."""
    processes = server_processes(directory)
    pids = {process.pid for process in processes}
    found: dict[str, int] = {}
    for process in processes:
        try:
            if process.ppid() not in pids:
                found[process.name()] = found.get(process.name(), 0) + 1
        except psutil.NoSuchProcess:
            continue
    return found


def fixed_port() -> int:
    """A port that only who asks for it gets: the kernel takes those of connections elsewhere."""
    lowest, _ = Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()
    while True:
        port = random.randrange(10_000, int(lowest))
        try:
            with socket.create_server(("127.0.0.1", port)):
                return port
        except OSError:
            continue
