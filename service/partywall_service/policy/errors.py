"""What is wrong with a quotas.toml: everything at once, each with its place.

PolicyError      the file cannot be used; `errors` are its faults

ValueError       one value cannot be what it should; the message says what was expected
UnknownName      no tier names this limit or resource
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PolicyFault:
    """One fault.

    Attributes:
        source: the file's name.
        path: the table path, as TOML writes it; empty for the file as a whole.
        message: what was expected, and what came.
    """

    source: str
    path: str
    message: str

    def __str__(self) -> str:
        return ": ".join(part for part in (self.source, self.path, self.message) if part)


class PolicyError(Exception):
    """The policy cannot be used; its text is one line a fault."""

    def __init__(self, *errors: PolicyFault) -> None:
        super().__init__("\n".join(map(str, errors)))
        self.errors = errors


class UnknownName(Exception):
    """No tier names this limit or resource."""

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"no tier names {name!r} among its {kind}")
        self.kind = kind
        self.name = name
