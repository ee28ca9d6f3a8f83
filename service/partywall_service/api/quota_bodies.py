"""What changes of quotas are asked with and answered by, as msgspec reads and OpenAPI tells it."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, ClassVar

import msgspec

from partywall_service.api.raw import COMMON, HotRoute
from partywall_service.api.schemas import PRINTABLE
from partywall_service.names import NAME_PATTERN, TENANT_PATTERN
from partywall_service.policy.model import MAX_AMOUNT
from partywall_service.quotas.model import Crossing, QuotaState, SettledAs

MAX_ITEMS = 64
"""Resources to one change."""

RESERVATION_PATTERN = "^[A-Za-z0-9_-]{1,64}$"
KEY_PATTERN = "^[!-~]{1,255}$"
"""An `Idempotency-Key`: visible ASCII, so that any client can send it again as it was."""

KEY_HEADER = "Idempotency-Key"
KEY_MEANS = "The same again within 24 hours gives the first answer, and changes nothing."
MAY_BE_EMPTY = ("commit", "cancel")
"""What needs no body."""

Amount = Annotated[
    int,
    msgspec.Meta(ge=1, le=MAX_AMOUNT, description="In units of the resource: bytes for sizes."),
]
Items = Annotated[
    dict[str, Amount],
    msgspec.Meta(
        min_length=1,
        max_length=MAX_ITEMS,
        description="Amounts by resource: all of them or none.",
        examples=[{"users": 1, "storage": 1048576}],
        extra_json_schema={"propertyNames": {"pattern": NAME_PATTERN}},
    ),
]
Reason = Annotated[
    str,
    msgspec.Meta(
        min_length=1,
        max_length=500,
        description="For the ledger: why.",
        extra_json_schema={"pattern": PRINTABLE},
    ),
]


class QuotaItems(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is consumed or released."""

    items: Items
    reason: Reason | None = None


class QuotaHold(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is reserved, and for how many seconds."""

    reason: ClassVar[str | None] = None  # holding writes no line of the ledger

    items: Items
    ttl: Annotated[int, msgspec.Meta(ge=1, le=86400, description="Seconds.")] = 60


class QuotaCommit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is consumed of a reservation: all of it when `items` is left out."""

    items: Items | None = None
    reason: Reason | None = None


class QuotaCancel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Nothing: all of the reservation goes back."""

    reason: ClassVar[str | None] = None  # no more than holding does
    items: ClassVar[dict[str, int] | None] = None


Change = QuotaItems | QuotaHold | QuotaCommit | QuotaCancel


class QuotaChange(msgspec.Struct, frozen=True):
    """What came of consuming or releasing.

    `quotas` are those it touched, as they stand after it; `denied` names the resources that had no
    room, and then nothing was changed; `crossings` are the thresholds that it crossed.
    """

    allowed: bool
    tenant: str
    denied: tuple[str, ...]
    quotas: tuple[QuotaState, ...]
    crossings: tuple[Crossing, ...]


class QuotaReserved(msgspec.Struct, frozen=True):
    """What came of reserving; `reservation` and `expires_at` only where it is allowed."""

    allowed: bool
    tenant: str
    denied: tuple[str, ...]
    quotas: tuple[QuotaState, ...]
    crossings: tuple[Crossing, ...]
    reservation: str | msgspec.UnsetType = msgspec.UNSET
    expires_at: datetime | msgspec.UnsetType = msgspec.UNSET


class QuotaSettled(msgspec.Struct, frozen=True):
    """A reservation that was ended, and its quotas after it."""

    reservation: str
    status: SettledAs
    quotas: tuple[QuotaState, ...]
    crossings: tuple[Crossing, ...]


def _parameter(
    name: str, where: str, pattern: str, description: str, example: str
) -> Mapping[str, Any]:
    return {
        "name": name,
        "in": where,
        "required": where == "path",
        "description": description,
        "schema": {"type": "string", "pattern": pattern},
        "example": example,
    }


_TENANT = _parameter("tenant", "path", TENANT_PATTERN, "The tenant's id.", "acme")
_RESERVATION = _parameter(
    "reservation", "path", RESERVATION_PATTERN, "As `reserve` named it.", "d0f3a9c51d2e74b6a8c0e1f2"
)
_KEY = _parameter(
    KEY_HEADER, "header", KEY_PATTERN, KEY_MEANS, "3f2b8c1e-0a55-4a7e-9d11-6f4c0b7e8d21"
)
_PROBLEMS = (*COMMON, "unknown-tenant", "unknown-resource", "method-not-allowed", "conflict")


def _route(
    path: str, summary: str, asked: object, answered: object, description: str, *slugs: str
) -> HotRoute:
    return HotRoute(
        f"/v1/tenants/{{tenant}}/quotas/{path}",
        "POST",
        summary,
        asked,
        answered,
        (*_PROBLEMS, *slugs),
        tag="quotas",
        description=description,
        parameters=(_TENANT, _RESERVATION, _KEY) if "reservations" in path else (_TENANT, _KEY),
        body_required=path.rpartition("/")[-1] not in MAY_BE_EMPTY,
    )


QUOTA_ROUTES = (
    _route(
        "consume",
        "Take of quotas",
        QuotaItems,
        QuotaChange,
        "All of the items or none. A denial is an answer: `allowed` is false, nothing was changed.",
    ),
    _route(
        "release",
        "Give back to quotas",
        QuotaItems,
        QuotaChange,
        "All of the items or none. Below zero it is a `conflict`.",
    ),
    _route(
        "reserve",
        "Hold of quotas for a while",
        QuotaHold,
        QuotaReserved,
        "All of the items or none, until committed, cancelled or `ttl` seconds have passed.",
    ),
    _route(
        "reservations/{reservation}/commit",
        "Consume what is reserved",
        QuotaCommit,
        QuotaSettled,
        "All of it, or of each resource what `items` says; the rest goes back.",
        "unknown-reservation",
    ),
    _route(
        "reservations/{reservation}/cancel",
        "Give back what is reserved",
        QuotaCancel,
        QuotaSettled,
        "All of it.",
        "unknown-reservation",
    ),
)
