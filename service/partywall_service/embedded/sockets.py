"""Where a server's Unix socket goes."""

import hashlib
import os
import tempfile
from pathlib import Path

from partywall_service.embedded.errors import ServerFailed

MAX_SOCKET_PATH = 100
"""Bytes. The kernel takes 107 (Linux) or 103 (macOS), the terminating zero aside."""


def socket_dir(home: Path, socket_name: str, owner: int | None = None) -> Path:
    """Return a private directory for a server's socket: `home`, unless its path is too long.

    The other place is named after `home`, so that it is the same at every start.

    Args:
        home: the server's own directory, absolute.
        socket_name: the name of the socket file in it.
        owner: the user id the server runs as, where it is not ours.

    Raises:
        ServerFailed: the other place exists and belongs to somebody else.
    """
    if len(os.fsencode(home / socket_name)) <= MAX_SOCKET_PATH:
        return home
    digest = hashlib.sha256(os.fsencode(home)).hexdigest()[:16]
    for base in (Path(tempfile.gettempdir()), Path("/tmp")):  # noqa: S108 - checked below
        place = base / f"partywall-{digest}"
        if len(os.fsencode(place / socket_name)) <= MAX_SOCKET_PATH:
            break
    place.mkdir(mode=0o700, exist_ok=True)
    if os.geteuid() == 0 and owner is not None and place.lstat().st_uid in (0, owner):
        os.chown(place, owner, -1, follow_symlinks=False)
    # In a directory that everybody can write to, a name we can foretell may have been taken.
    found = place.lstat()
    wanted = os.geteuid() if owner is None else owner
    if place.is_symlink() or found.st_uid != wanted or found.st_mode & 0o077:
        raise ServerFailed(
            f"the directory {place}, needed for a socket because {home} is too long a path for "
            f"one, must belong to user {wanted} alone (mode 0700): remove it, or move the data "
            "directory to a shorter path"
        )
    return place
