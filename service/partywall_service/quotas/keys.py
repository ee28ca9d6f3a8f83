"""Every Redis key of quotas, under the shard of its tenant (engine/keys.py)."""

from partywall_service.engine.keys import of_tenant


def levels(prefix: str, tenant: str) -> str:
    """The hash of a tenant's levels that live in Redis alone, by resource."""
    return f"{of_tenant(prefix, tenant)}:quota:levels"


def holds(prefix: str, tenant: str) -> str:
    """The sorted set of what its reservations hold of them, by when they expire."""
    return f"{of_tenant(prefix, tenant)}:quota:holds"


def reservation(prefix: str, tenant: str, name: str) -> str:
    """The string that says what a reservation holds, and how it was settled."""
    return f"{of_tenant(prefix, tenant)}:quota:reservation:{name}"


def answer(prefix: str, tenant: str, operation: str) -> str:
    """The string that says what an operation under an idempotency key was answered."""
    return f"{of_tenant(prefix, tenant)}:quota:answer:{operation}"


def call(prefix: str, tenant: str, name: str) -> str:
    """The string that says that a script call that names this tenant was run."""
    return f"{of_tenant(prefix, tenant)}:quota:call:{name}"


def remembered(prefix: str, tenant: str, resource: str) -> str:
    """The string of one of PostgreSQL's levels, as it was answered a moment ago."""
    return f"{of_tenant(prefix, tenant)}:quota:remembered:{resource}"
