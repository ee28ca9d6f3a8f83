"""Where the sidecar listens: a TCP port, or a Unix socket for those on the same machine."""

import errno
import fcntl
import os
import shlex
import socket
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

UNIX = "unix:"
"""What a host begins with that is the path of a Unix socket."""

SOCKET_MODE = 0o660
"""Who may connect to a Unix socket: its owner and group. A token is needed all the same."""

PROBE_SECONDS = 1.0
"""How long whoever holds a socket file has to take a connection."""


class CannotListen(Exception):
    """The address is taken, or none; the message is what to tell the person who gave it."""


class Listener(NamedTuple):
    """A bound socket, and how to reach it.

    Attributes:
        socket: the socket.
        url: as host apps and the command line take it.
        base: what curl puts paths behind, its options before it.
    """

    socket: socket.socket
    url: str
    base: str


@contextmanager
def listening(host: str, port: int) -> Iterator[Listener]:
    """Binds the address, so that a taken one is known before anything is started.

    Args:
        host: a name or an address, or `unix:` and the path of a socket; that has no port.
        port: 0 takes a free one.

    Raises:
        CannotListen: with what to do about it.
    """
    if host.startswith(UNIX):
        with _unix(socket_path(host)) as listener:
            yield listener
    else:
        with _tcp(host, port) as listener:
            yield listener


def socket_path(host: str) -> Path:
    """The path in `unix:/path`, `unix:///path` or `unix:path`, absolute.

    Raises:
        CannotListen: there is none.
    """
    text = host.removeprefix(UNIX)
    if text.startswith("//"):
        text = text.removeprefix("//")
        if not text.startswith("/"):
            text = ""  # unix://run/… would name a host
    if not text or text.endswith("/"):
        raise CannotListen(
            f"expected the path of a socket, as in unix:/run/partywall.sock; got {host!r}"
        )
    return Path(text).absolute()


def taken(host: str, port: int) -> CannotListen:
    """What to say when another process listens on a port."""
    return CannotListen(
        f"port {port} on {host} is in use: stop whatever listens there, or choose another "
        "port (--port, or PARTYWALL_PORT)"
    )


@contextmanager
def _tcp(host: str, port: int) -> Iterator[Listener]:
    try:
        family, kind, _proto, _name, address = min(
            socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        )
        bound = socket.socket(family, kind)
    except OSError as exc:
        raise CannotListen(f"cannot listen on {host}: {exc.strerror or exc}") from exc
    with bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            bound.bind(address)
        except OSError as exc:
            if exc.errno == errno.EADDRINUSE:
                raise taken(host, port) from exc
            reason = exc.strerror or exc
            raise CannotListen(f"cannot listen on {host} port {port}: {reason}") from exc
        url = _tcp_url(host, bound.getsockname()[1])
        yield Listener(bound, url, url)


def _tcp_url(host: str, port: int) -> str:
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104 - not bound here
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


@contextmanager
def _unix(path: Path) -> Iterator[Listener]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as bound:
        try:
            with _alone_in(path.parent):
                _bind(bound, path)
                # At once: until somebody listens a socket file looks like one left behind.
                bound.listen()
                ours = path.lstat()
        except OSError as exc:
            raise CannotListen(f"cannot listen on {path}: {exc.strerror or exc}") from exc
        try:
            yield Listener(
                bound, f"unix://{path}", f"--unix-socket {shlex.quote(str(path))} http://partywall"
            )
        finally:
            with suppress(OSError):  # somebody else may have removed it
                if os.path.samestat(path.lstat(), ours):
                    path.unlink()


@contextmanager
def _alone_in(directory: Path) -> Iterator[None]:
    """One start at a time: of two that find a dead socket, none may remove the other's new one."""
    descriptor = os.open(directory, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _bind(bound: socket.socket, path: Path) -> None:
    umask = os.umask(0o777 & ~SOCKET_MODE)
    try:
        try:
            bound.bind(os.fspath(path))
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
            _remove_stale(path)
            bound.bind(os.fspath(path))
    finally:
        os.umask(umask)


def _remove_stale(path: Path) -> None:
    """Removes a socket that nobody listens on any more.

    Raises:
        CannotListen: somebody does, or it is something else.
    """
    if not stat.S_ISSOCK(path.lstat().st_mode):
        raise CannotListen(f"cannot listen on {path}: it is there already, and is no socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(PROBE_SECONDS)
        try:
            probe.connect(os.fspath(path))
        except ConnectionRefusedError:
            path.unlink()
            return
        except (TimeoutError, BlockingIOError):
            pass  # it listens, and is too busy to answer
    raise CannotListen(
        f"{path} is in use: stop whatever listens there, or choose another socket (--host, or "
        "PARTYWALL_HOST)"
    )
