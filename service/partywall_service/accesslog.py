"""Access logs in the Common and Combined formats, plain or gzip, read with bounded memory.

Source: Apache's `mod_log_config`, `%h %l %u %t "%r" %>s %b` and what Combined adds to it; nginx's
`combined` writes the same.
"""

import gzip
import io
import re
import sys
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

LONGEST_LINE = 64 * 1024
"""Bytes. Servers cut requests far below this, so a longer line is not of a log."""

_GZIP = b"\x1f\x8b"
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
_EPOCH = date(1970, 1, 1).toordinal()

# The user may hold spaces (Basic authentication takes any name) but no "[", so that the time is
# found in one pass, whatever a client wrote into its name. The request may hold quotes, escaped
# (Apache) or not (others): it ends where a status and a size follow. What Combined and custom
# formats add is not looked at: a line cut short in its user agent is still a request.
_LINE = re.compile(
    r"(?P<host>\S+) \S+ (?P<user>[^\[]+) "
    r"\[(?P<day>\d\d/[A-Z][a-z]{2}/\d{4}):(?P<hour>\d\d):(?P<minute>\d\d):(?P<second>\d\d) "
    r"(?P<offset>[+-]\d{4})\] "
    r'".*?" (?:\d{3}|-) (?:\d+|-)(?:\s|$)',
    re.ASCII,
)


class LogError(Exception):
    """A log that cannot be read; the message says which, and why."""


class Entry(NamedTuple):
    """One request of a log.

    Attributes:
        host: who asked, as the log has it: an IPv4 or IPv6 address or a name.
        user: as whom; None when nobody was authenticated.
        at: when, in seconds since the epoch; logs know whole seconds.
    """

    host: str
    user: str | None
    at: int


def parse_line(line: str) -> Entry | None:
    """The request of a Common or Combined line; None when it is neither."""
    match = _LINE.match(line)
    if match is None:
        return None
    host, user, day, hour, minute, second, offset = match.groups()
    if " " in user and "-" in user.split(" "):
        # No such name: the line has more fields in front (a virtual host's name, a syslog header),
        # and what stands where the host should is another thing.
        return None
    midnight = _midnight(day, offset)
    # 60 is a leap second.
    if midnight is None or hour > "23" or minute > "59" or second > "60":
        return None
    at = midnight + 3600 * int(hour) + 60 * int(minute) + int(second)
    return Entry(host, None if user in ("-", '""') else user, at)


@lru_cache(maxsize=64)
def _midnight(day: str, offset: str) -> int | None:
    """`17/May/2015` and `+0200` as seconds since the epoch.

    By hand: `strptime` reads month names in the process's locale, and logs are always in English.
    """
    number, name, year = day.split("/")
    hours, minutes = int(offset[1:3]), int(offset[3:])
    if name not in _MONTHS or year < "1970" or hours > 23 or minutes > 59:
        return None
    try:
        ordinal = date(int(year), _MONTHS.index(name) + 1, int(number)).toordinal()
    except ValueError:  # the 31st of April
        return None
    east = 3600 * hours + 60 * minutes
    return 86_400 * (ordinal - _EPOCH) - (east if offset[0] == "+" else -east)


class AccessLog:
    """An open log: iterate it for its lines.

    Attributes:
        name: for people.
        size: bytes on disk, as they are (compressed or not); None for a stream.
    """

    def __init__(self, name: str, raw: BinaryIO, size: int | None) -> None:
        self.name = name
        self.size = size
        self._source = _Source(raw)

    @property
    def consumed(self) -> int:
        """How many of `size` bytes have been read."""
        return self._source.consumed

    def __iter__(self) -> Iterator[str | None]:
        """Every line without its end; None for one too long to be a log's.

        Bytes that are not UTF-8 come as escapes.

        Raises:
            LogError: it cannot be read to its end.
        """
        try:
            file = self._decompressed()
            while line := file.readline(LONGEST_LINE):
                if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
                    while (rest := file.readline(LONGEST_LINE)) and not rest.endswith(b"\n"):
                        pass
                    yield None
                else:
                    yield line.rstrip(b"\r\n").decode(errors="backslashreplace")
        except (EOFError, gzip.BadGzipFile, zlib.error) as exc:
            raise LogError(f"{self.name} is broken gzip: {exc}") from exc
        except OSError as exc:
            raise LogError(f"cannot read {self.name}: {exc.strerror or exc}") from exc

    def _decompressed(self) -> BinaryIO:
        """What it holds, whatever it is called: a rotated log may have any name."""
        self._source.look_ahead(len(_GZIP))
        plain = io.BufferedReader(self._source)
        if self._source.ahead != _GZIP:
            return plain
        # Buffered, because gzip's own readline is slow.
        return io.BufferedReader(gzip.GzipFile(fileobj=plain))


class _Source(io.RawIOBase):
    """Bytes that can be looked at before they are read, also from a pipe; counts them."""

    def __init__(self, raw: BinaryIO) -> None:
        self.ahead = b""
        self.consumed = 0
        self._raw = raw

    def look_ahead(self, count: int) -> None:
        self.ahead = self._raw.read(count)
        self._unread = self.ahead

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        view = memoryview(buffer)
        if self._unread:
            count = min(len(view), len(self._unread))
            view[:count], self._unread = self._unread[:count], self._unread[count:]
        else:
            count = self._raw.readinto(view)  # type: ignore[attr-defined] # both we open have it
        self.consumed += count
        return count


@contextmanager
def open_log(path: str) -> Iterator[AccessLog]:
    """Opens a log, plain or gzip; `-` is standard input.

    Raises:
        LogError: it cannot be opened.
    """
    if path == "-":
        if sys.stdin is None:
            raise LogError("cannot read standard input: it is closed")
        yield AccessLog("standard input", sys.stdin.buffer, None)
        return
    try:
        file = Path(path).open("rb")  # noqa: SIM115 - closed below
        size = file.seek(0, io.SEEK_END) if file.seekable() else None
        if size is not None:
            file.seek(0)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise LogError(f"cannot read {path}: {getattr(exc, 'strerror', None) or exc}") from exc
    with file:
        yield AccessLog(path, file, size)
