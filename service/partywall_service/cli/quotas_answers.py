"""What the sidecar answers about quotas, as the commands need it."""

import msgspec

from partywall_service.cli.client import Sidecar
from partywall_service.quotas.model import Crossing, QuotaState


class TenantQuotas(msgspec.Struct, frozen=True):
    """All of a tenant's quotas."""

    tenant: str
    tier: str
    quotas: list[QuotaState]

    @property
    def units(self) -> dict[str, str]:
        """What each resource is counted in."""
        return {one.resource: one.unit for one in self.quotas}


class Changed(msgspec.Struct, frozen=True):
    """What came of consuming or releasing."""

    allowed: bool
    denied: list[str]
    quotas: list[QuotaState]
    crossings: list[Crossing]


class Over(msgspec.Struct, frozen=True):
    """A resource of which a tier would give less than is used."""

    resource: str
    used: int
    limit: int
    excess: int


class Preview(msgspec.Struct, frozen=True, rename={"tier": "from"}):
    """What a tenant would have too much of on another tier."""

    tier: str
    to: str
    over: list[Over]


def read_quotas(api: Sidecar, tenant: str) -> TenantQuotas:
    """A tenant's quotas as they stand."""
    return api.read_as(TenantQuotas, api.get("tenants", tenant, "quotas"))
