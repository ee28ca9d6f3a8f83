"""The policy in force: one reference, swapped whole."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

from partywall_service.policy.model import Policy


@dataclass(frozen=True, slots=True)
class Refused:
    """A change of quotas.toml that is not in force.

    Attributes:
        at: when it was refused.
        errors: one line a fault.
    """

    at: datetime
    errors: tuple[str, ...]


@dataclass(slots=True)
class PolicyHolder:
    """Holds the policy that decisions are made by.

    A swap is one assignment, so a request sees the old policy or the new one, never a mixture.

    Attributes:
        current: the policy in force.
        taken_at: when it was taken.
        refused: what was refused since then; None when nothing was.
    """

    current: Policy
    taken_at: datetime = field(default_factory=lambda: datetime.now(UTC))
    refused: Refused | None = None

    def take(self, policy: Policy) -> None:
        """Puts a policy in force."""
        self.current = policy
        self.taken_at = datetime.now(UTC)
        self.refused = None

    def refuse(self, errors: Sequence[str]) -> None:
        """Remembers why a change is not in force."""
        self.refused = Refused(datetime.now(UTC), tuple(errors))
