"""What keeps a question about quotas from being answered."""

from collections.abc import Iterable


class QuotaError(Exception):
    """A quota's question that cannot be answered.

    QuotaError
    ├── UnknownTenant       nobody registered it, and the policy has no default tier
    └── UnknownResource     no tier names it
    """


class UnknownTenant(QuotaError):
    """Nobody registered it, and the policy has no default tier."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"tenant {tenant!r} is not registered")


class UnknownResource(QuotaError):
    """No tier names it."""

    def __init__(self, resource: str, known: Iterable[str]) -> None:
        super().__init__(
            f"no tier has a quota of {resource!r}; expected one of {', '.join(known) or 'none'}"
        )
        self.resource = resource
