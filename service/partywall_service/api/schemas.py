"""Bodies of requests and answers (docs/contract.md section 4, Tenants and tokens).

What comes in is strict: no coercion, no unknown fields, no text that could not be stored or shown.
"""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
    WithJsonSchema,
)

from partywall_service.ledger import AuditEntry, OverrideRecord, TenantRecord, TokenRecord
from partywall_service.ledger.records import OverrideKind, Status
from partywall_service.names import (
    JOB_PATTERN,
    NAME_PATTERN,
    QUEUE_PATTERN,
    TENANT_PATTERN,
    WINDOW_PATTERN,
)
from partywall_service.policy.model import MAX_AMOUNT, Policy

PRINTABLE = "^[^\\u0000-\\u001f\\u007f-\\u009f]*$"
_LABEL = "[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
_HOSTNAME = rf"^{_LABEL}(\.{_LABEL})*$"
_SCOPE = rf"^(admin|host|tenant:{TENANT_PATTERN.strip('^$')})$"
_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]\d\d:\d\d)", re.IGNORECASE | re.ASCII
)

MEANINGS = {
    TENANT_PATTERN: "1 to 128 letters, digits, '.', '_' or '-', the first a letter or digit",
    NAME_PATTERN: "1 to 64 letters, digits, '.', '_' or '-', the first a letter or digit",
    QUEUE_PATTERN: "a tenant's id, _system or _cron",
    JOB_PATTERN: "1 to 200 letters, digits, '.', '_', '-' or ':', the first a letter or digit",
    PRINTABLE: "text without line breaks and other control characters",
    WINDOW_PATTERN: "minutes or hours up to a day, such as 15m or 1h",
    _HOSTNAME: "a host name of letters, digits, '-' and '.'",
    _SCOPE: "admin, host or tenant:<id>",
}
"""The patterns above, as a person would say them."""

LAST_EXPIRY = datetime(9999, 1, 1, tzinfo=UTC)
"""Later instants cannot be carried into every time zone, and so not through every driver."""


def _not_blank(text: str) -> str:
    if not text.strip():
        raise ValueError("expected more than spaces")
    return text


def _instant(value: object) -> datetime | None:
    """An RFC 3339 instant as UTC.

    By hand, because in Python mode pydantic's strictness wants a datetime and its laxness takes
    numbers and instants without an offset.
    """
    if value is None:
        return None
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError(
            f"expected an RFC 3339 instant such as 2030-01-31T12:00:00Z; got {_said(value)}"
        )
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError) as exc:
        raise ValueError(f"expected an instant that exists; got {_said(value)} ({exc})") from exc


def _future(instant: datetime | None) -> datetime | None:
    if instant is not None and not datetime.now(UTC) < instant < LAST_EXPIRY:
        raise ValueError(f"expected an instant from now on and before the year 9999; got {instant}")
    return instant


def _override_value(value: object) -> object:
    """Told apart by hand: of a union, pydantic would report a fault for each member."""
    if isinstance(value, str) and 0 < len(value) <= 200 and value.isprintable():
        return value
    if isinstance(value, int) and not isinstance(value, bool) and -1 <= value <= MAX_AMOUNT:
        return value
    raise ValueError(
        "expected a rate such as '500/minute', an amount such as 50 or '5 GiB', or 'unlimited'; "
        f"got {_said(value)}"
    )


def _said(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _lower_once(domains: list[str] | None) -> list[str] | None:
    return None if domains is None else list(dict.fromkeys(domains))


Utc = Annotated[datetime, AfterValidator(lambda instant: instant.astimezone(UTC))]
"""An instant in answers: RFC 3339 with Z, whatever zone the driver gave it in."""

TenantId = Annotated[str, StringConstraints(pattern=TENANT_PATTERN)]
TierName = Annotated[str, StringConstraints(pattern=NAME_PATTERN)]
Line = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, pattern=PRINTABLE),
    AfterValidator(_not_blank),
]
"""One line of text for people: no control characters, not only spaces."""
Reason = Annotated[
    str,
    StringConstraints(min_length=1, max_length=500, pattern=PRINTABLE),
    AfterValidator(_not_blank),
]
Hostname = Annotated[
    str,
    StringConstraints(min_length=1, max_length=253, pattern=_HOSTNAME),
    AfterValidator(str.lower),
]
"""A host name, kept in lower case. Internationalised ones in their ASCII form (`xn--…`)."""
TokenScope = Annotated[str, StringConstraints(pattern=_SCOPE)]
Instant = Annotated[
    datetime | None,
    BeforeValidator(_instant),
    WithJsonSchema({"anyOf": [{"type": "string", "format": "date-time"}, {"type": "null"}]}),
]
"""An instant that a client names: RFC 3339 with any offset; read as UTC."""
ExpiresAt = Annotated[Instant, AfterValidator(_future)]
OverrideValue = Annotated[
    str | int,
    BeforeValidator(_override_value),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1, "maxLength": 200, "pattern": PRINTABLE},
                {"type": "integer", "minimum": -1, "maximum": MAX_AMOUNT},
            ]
        }
    ),
]


class _Asked(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


class TenantChange(_Asked):
    """A tenant to register or change. What is left out or null is kept."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [{"tier": "pro", "name": "Acme Ltd", "domains": ["app.acme.example"]}]
        }
    )

    tier: TierName = Field(description="A tier of the policy.")
    name: Line | None = Field(None, description="For people; a new tenant's is its id.")
    domains: (
        Annotated[list[Hostname], Field(max_length=100), AfterValidator(_lower_once)] | None
    ) = Field(None, description="All of its domains; each belongs to one tenant at most.")
    status: Status | None = Field(None, description="A new tenant is active.")


class Tenant(_Answer):
    """A registered tenant; its features are its tier's."""

    tenant: TenantId
    name: str
    tier: str
    status: Status
    domains: list[str]
    features: list[str]
    created_at: Utc
    updated_at: Utc

    @classmethod
    def of(cls, record: TenantRecord, policy: Policy) -> Self:
        """A record as clients see it. A tier that the policy no longer has gives no features."""
        tier = policy.tiers.get(record.tier)
        return cls(
            tenant=record.tenant,
            name=record.name,
            tier=record.tier,
            status=record.status,
            domains=list(record.domains),
            features=list(tier.features) if tier is not None else [],
            created_at=record.created_at,
            updated_at=record.updated_at,
        )


class Tenants(_Answer):
    """A page of tenants, by id."""

    tenants: list[Tenant]
    next_cursor: str | None


class OverrideChange(_Asked):
    """One tenant's exception to its tier."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "value": "500/minute",
                    "expires_at": "2098-01-31T12:00:00Z",
                    "reason": "launch day, ticket 4711",
                }
            ]
        }
    )

    value: OverrideValue = Field(
        description="As quotas.toml says it: rates, a number, a size, or `unlimited` (-1)."
    )
    expires_at: ExpiresAt = Field(None, description="When it ends by itself; null: it does not.")
    reason: Reason = Field(description="Why, for whoever finds it later.")


class Override(_Answer):
    """An override; one that has expired is gone."""

    kind: OverrideKind
    name: str
    value: str | int
    expires_at: Utc | None
    reason: str
    author: str
    created_at: Utc

    @classmethod
    def of(cls, record: OverrideRecord) -> Self:
        """A record as clients see it."""
        return cls(
            kind=record.kind,
            name=record.name,
            value=record.value,
            expires_at=record.expires_at,
            reason=record.reason,
            author=record.author,
            created_at=record.created_at,
        )


class Overrides(_Answer):
    """A page of one tenant's overrides, by kind and name."""

    overrides: list[Override]
    next_cursor: str | None


class TokenRequest(_Asked):
    """A token to make."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"scope": "host", "name": "the shop's backend"}]}
    )

    scope: TokenScope = Field(description="`admin`, `host` or `tenant:<id>`.")
    name: Line = Field(description="What the audit log calls its bearer.")


class Token(_Answer):
    """A token without its secret."""

    id: str
    scope: str
    name: str
    created_at: Utc

    @classmethod
    def of(cls, record: TokenRecord) -> Self:
        """A record as clients see it."""
        return cls(id=record.id, scope=record.scope, name=record.name, created_at=record.created_at)


class NewToken(Token):
    """A token just made: the only time it is shown."""

    token: str


class Tokens(_Answer):
    """A page of tokens, by id."""

    tokens: list[Token]
    next_cursor: str | None


class AuditLine(_Answer):
    """One change: who did what, to which tenant (null: to none in particular)."""

    at: Utc
    actor: str
    action: str
    tenant: str | None
    detail: dict[str, Any]

    @classmethod
    def of(cls, entry: AuditEntry) -> Self:
        """An entry as clients see it."""
        return cls(
            at=entry.at,
            actor=entry.actor,
            action=entry.action,
            tenant=entry.tenant,
            detail=dict(entry.detail),
        )


class AuditLines(_Answer):
    """A page of the audit log, newest first."""

    entries: list[AuditLine]
    next_cursor: str | None
