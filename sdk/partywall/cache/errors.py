"""What the tenant cache raises of its own; Redis's errors pass through unchanged."""

from partywall.errors import PartywallError


class CacheFull(PartywallError):
    """The tenant has as many live keys as it may have, and the policy is to refuse.

    Attributes:
        tenant: its id.
        limit: how many keys it may have.
    """

    def __init__(self, tenant: str, limit: int) -> None:
        super().__init__(f"the cache of tenant {tenant!r} is full: it may have {limit} keys")
        self.tenant = tenant
        self.limit = limit
