"""One process to a data directory."""

import fcntl
import os
from pathlib import Path

from partywall_service.embedded.errors import DataDirBusy


class DataDirLock:
    """An exclusive lock on a data directory, held until released or until the process ends.

    The kernel lets go of it however the process ends, so a kill -9 leaves nothing to clean up;
    the process id inside the file is only for the message of whoever comes second.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._file: int | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            DataDirBusy: somebody has it; the message names the process and the directory.
            OSError: the directory cannot be written to.
        """
        file = os.open(self._data_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            holder = os.read(file, 32).decode(errors="replace").strip() or "unknown"
            os.close(file)
            raise DataDirBusy(
                f"the data directory {self._data_dir} is in use by another partywall "
                f"(process {holder}): stop that one, or set PARTYWALL_DATA_DIR to another directory"
            ) from exc
        os.ftruncate(file, 0)
        os.write(file, f"{os.getpid()}\n".encode())
        self._file = file

    def release(self) -> None:
        """Let go; the file stays, since removing it would let two processes lock two files."""
        if self._file is not None:
            os.close(self._file)
            self._file = None
