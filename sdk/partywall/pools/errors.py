"""What `TenantPools` raises beside SQLAlchemy's own errors.

PartywallError
├── PoolTimeout     no connection in time
└── PoolsClosed     `aclose()` was called
"""

from partywall.errors import PartywallError


class PoolTimeout(PartywallError, TimeoutError):
    """A tenant's turn did not come in time, or no connection could be opened in time.

    Attributes:
        tenant: whose turn.
        seconds: how long it waited.
    """

    def __init__(self, message: str, tenant: str, seconds: float) -> None:
        super().__init__(message)
        self.tenant = tenant
        self.seconds = seconds


class PoolsClosed(PartywallError):
    """`TenantPools.aclose()` was called: there are no more connections."""
