"""Everything Partywall's SDK raises, in one tree.

PartywallError
├── ConfigurationError          an argument or setting that cannot be; nothing was sent
├── NoTenant                    `current_tenant()` outside a request or job
├── Denied                      a denial whose caller asked for an exception
│   ├── LimitExceeded           a limit has no room for the cost
│   ├── TenantRefused           the tenant is unknown or suspended
│   ├── TenantConflict          one request names two tenants
│   ├── InvalidCredentials      a token was presented that is not valid
│   ├── FeatureMissing          the tenant's tier lacks a feature
│   ├── QuotaExceeded           a quota has no room for what was to be consumed or reserved
│   └── QueueFull               as many of its jobs wait as may (429; a SidecarError, too)
├── JobFailed                   the job whose result was asked for has failed, or is dead
├── JobCancelled                the job whose result was asked for was cancelled
├── KeysUnavailable             the keys that a token is checked with could not be fetched
└── SidecarError                no answer to go by
    ├── SidecarUnavailable      not reachable, not answering in time, or not able to decide (503)
    ├── Unauthenticated         the token is none, or revoked (401)
    ├── Forbidden               the token may not do this (403)
    ├── NotFound                (404)
    │   ├── UnknownTenant
    │   ├── UnknownLimit
    │   ├── UnknownResource
    │   ├── UnknownReservation
    │   └── UnknownJob
    ├── Conflict                (409)
    ├── InvalidRequest          the sidecar refused what was asked (413, 422)
    └── UnexpectedAnswer        what came back was not Partywall's

A denial is a value (`Decision` or `QuotaOutcome`, falsy) wherever the caller did not ask for an
exception.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from partywall.decision import Decision
    from partywall.jobs.records import JobInfo
    from partywall.quotas.records import QuotaOutcome


class PartywallError(Exception):
    """The root: catch it to catch all of them."""


class ConfigurationError(PartywallError, ValueError):
    """An argument or setting that cannot be: the message says what was expected."""


class NoTenant(PartywallError, LookupError):
    """No request or job of a tenant is running here."""


class Denied(PartywallError):
    """A denial whose caller asked for an exception; `PartywallMiddleware` answers it."""


class LimitExceeded(Denied):
    """A limit has no room for the cost.

    Attributes:
        decision: the denial, with `retry_after` and its windows.
        upgrade: the next tier that would have admitted it, or None.
    """

    def __init__(self, decision: "Decision", upgrade: str | None = None) -> None:
        super().__init__(f"limit {decision.limit!r} of tenant {decision.tenant!r} has no room")
        self.decision = decision
        self.upgrade = upgrade


class TenantRefused(Denied):
    """The tenant is unknown or suspended.

    Attributes:
        tenant: its id.
        reason: `unknown-tenant` or `tenant-suspended`.
    """

    def __init__(self, tenant: str, reason: str) -> None:
        super().__init__(f"tenant {tenant!r} is refused: {reason}")
        self.tenant = tenant
        self.reason = reason


class TenantConflict(Denied):
    """One request names two tenants, so whose it is cannot be told; answered with 403."""


class InvalidCredentials(Denied):
    """A token was presented that is not valid: forged, expired, of another key or algorithm.

    Answered with 401; no other way of finding the tenant is tried.

    Attributes:
        reason: why, in ASCII without quotes, so that it fits `error_description` (RFC 6750).
    """

    def __init__(self, reason: str) -> None:
        super().__init__(f"the presented token is not valid: {reason}")
        self.reason = reason


class FeatureMissing(Denied):
    """The tenant's tier lacks a feature.

    Attributes:
        tenant: its id.
        tier: its tier.
        feature: what it lacks.
        upgrade: the next tier that has it, or None.
    """

    def __init__(self, tenant: str, tier: str | None, feature: str, upgrade: str | None) -> None:
        super().__init__(f"tier {tier!r} of tenant {tenant!r} has no feature {feature!r}")
        self.tenant = tenant
        self.tier = tier
        self.feature = feature
        self.upgrade = upgrade


class QuotaExceeded(Denied):
    """A quota has no room for what was to be consumed or reserved; nothing was changed.

    Attributes:
        tenant: its id.
        denied: the resources that had no room.
        items: what was asked for, by resource.
        outcome: the denial, with the quotas as they stood.
    """

    def __init__(self, outcome: "QuotaOutcome", items: Mapping[str, int]) -> None:
        said = "; ".join(_without_room(outcome, name, items.get(name)) for name in outcome.denied)
        super().__init__(f"tenant {outcome.tenant!r} has no room for {said}")
        self.tenant = outcome.tenant
        self.denied = outcome.denied
        self.items = dict(items)
        self.outcome = outcome


class JobFailed(PartywallError):
    """The job whose result was asked for has failed, or is dead: its error is the message.

    Attributes:
        info: the job as it stands.
    """

    def __init__(self, info: "JobInfo") -> None:
        named = f"job {info.id!r} of tenant {info.tenant!r}"
        super().__init__(info.error or f"{named} is {info.status}")
        self.info = info


class JobCancelled(PartywallError):
    """The job whose result was asked for was cancelled.

    Not `asyncio.CancelledError`: whoever waits for a job is not cancelled with it.

    Attributes:
        info: the job as it stands.
    """

    def __init__(self, info: "JobInfo") -> None:
        super().__init__(f"job {info.id!r} of tenant {info.tenant!r} was cancelled")
        self.info = info


class KeysUnavailable(PartywallError):
    """The keys that a token is checked with could not be fetched; answered with 503."""


class SidecarError(PartywallError):
    """The sidecar gave no answer to go by."""


class SidecarUnavailable(SidecarError):
    """Not reachable, not answering in time, or not able to decide.

    Attributes:
        retry_after: seconds after which to try again, where the sidecar said.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unauthenticated(SidecarError):
    """The token is none of this installation's, or was revoked."""


class Forbidden(SidecarError):
    """The token may not do this."""


class NotFound(SidecarError):
    """There is no such thing."""


class UnknownTenant(NotFound):
    """Nobody registered the tenant, and the policy has no default tier."""


class UnknownLimit(NotFound):
    """No tier names the limit."""


class UnknownResource(NotFound):
    """No tier names the resource."""


class UnknownReservation(NotFound):
    """There is no such reservation, or it is long over."""


class UnknownJob(NotFound):
    """The tenant has no such job, or it is not kept any more."""


class Conflict(SidecarError):
    """What was asked does not go with what is there."""


class QueueFull(Denied, SidecarError):
    """As many jobs of the tenant wait as its tier allows; nothing was queued.

    Attributes:
        retry_after: seconds after which to try again, where the sidecar said.
    """

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class InvalidRequest(SidecarError):
    """The sidecar refused what was asked.

    Attributes:
        errors: each fault as the field and the reason.
    """

    def __init__(self, message: str, errors: Sequence[tuple[str, str]] = ()) -> None:
        super().__init__(message)
        self.errors = tuple(errors)


class UnexpectedAnswer(SidecarError):
    """What came back was not Partywall's: a proxy's page, perhaps, or another version's."""


def _without_room(outcome: "QuotaOutcome", resource: str, asked: int | None) -> str:
    """What was asked of a resource, and how it stood."""
    said = repr(resource) if asked is None else f"{asked} of {resource!r}"
    quota = outcome.find(resource)
    if quota is None:
        return said
    reserved = f" and {quota.reserved} reserved" if quota.reserved else ""
    limit = "" if quota.limit is None else f" of {quota.limit}"
    return f"{said}: {quota.used}{limit} used{reserved}"
