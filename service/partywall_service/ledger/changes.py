"""How one sidecar tells the others that a record changed: PostgreSQL's own NOTIFY.

The notice is sent in the transaction of the change, so it arrives if and only if that committed,
and never before its effects can be read. NOTIFY reaches one database only, so installations on
one server do not hear each other.
"""

from dataclasses import dataclass
from typing import Literal

CHANNEL = "partywall"

ChangeKind = Literal["tenant", "token"]


@dataclass(frozen=True, slots=True)
class Change:
    """Something a sidecar may have cached is not what it was.

    Attributes:
        kind: "tenant" (its record or its overrides) or "token".
        id: which one.
    """

    kind: ChangeKind
    id: str

    @property
    def payload(self) -> str:
        """As it travels: `tenant:acme`."""
        return f"{self.kind}:{self.id}"

    @classmethod
    def parse(cls, payload: str) -> "Change | None":
        """The change a payload speaks of; None for what a newer version may have sent."""
        match payload.split(":", 1):
            case ["tenant" as kind, subject] | ["token" as kind, subject] if subject:
                return cls(kind, subject)
        return None
