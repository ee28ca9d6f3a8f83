"""Where a server's Unix socket goes."""

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from partywall_service.embedded.errors import ServerFailed

MAX_SOCKET_PATH = 100
"""Bytes. The kernel takes 107 (Linux) or 103 (macOS), the terminating zero aside."""


def socket_dir(home: Path, socket_name: str) -> Path:
    """Return the directory for a server's socket: `home`, unless its path is too long.

    The other place is named after `home`, so that it is the same at every start.

    Args:
        home: the server's own directory, absolute.
        socket_name: the name of the socket file in it.
    """
    if _fits(home / socket_name):
        return home
    name = "partywall-" + hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    place = Path(tempfile.gettempdir()) / name
    return place if _fits(place / socket_name) else Path("/tmp") / name  # noqa: S108 - see below


def make_socket_dir(place: Path, owner: int) -> None:
    """Make that directory, for its owner alone.

    Raises:
        ServerFailed: it exists and is not the owner's alone. In a directory that everybody can
            write to, somebody may have taken a name that can be foretold.
    """
    try:
        place.mkdir(mode=0o700)
        os.chown(place, owner, -1)
    except FileExistsError:
        found = place.lstat()
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != owner or found.st_mode & 0o077:
            raise ServerFailed(
                f"{place} must be a directory of user {owner} alone (mode 0700): a socket needs "
                "it, because the data directory's path is too long for one; remove it, or move "
                "the data directory to a shorter path"
            ) from None


def _fits(socket: Path) -> bool:
    return len(os.fsencode(socket)) <= MAX_SOCKET_PATH
