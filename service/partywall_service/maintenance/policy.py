"""quotas.toml as a worker reads it: anew when it has changed, at the next look."""

from pathlib import Path

import structlog

from partywall_service.policy.loader import PolicyError, load_policy
from partywall_service.policy.model import Policy

log = structlog.get_logger()


class FollowedPolicy:
    """The policy in a file; the last good one while that cannot be read.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read: tuple[int, int, int] | None = None
        self._policy: Policy | None = None

    @property
    def current(self) -> Policy:
        """As it is now.

        Raises:
            PolicyError: it cannot be read, and never could.
        """
        mark = self._mark()
        if self._policy is None:
            self._policy = load_policy(self._path)
        elif mark != self._read:
            try:
                self._policy = load_policy(self._path)
            except PolicyError as exc:
                log.warning("worker.policy_refused", error=str(exc))
        self._read = mark
        return self._policy

    def _mark(self) -> tuple[int, int, int] | None:
        """What changes when the file does; None where there is none."""
        try:
            found = self._path.stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size, found.st_ino
