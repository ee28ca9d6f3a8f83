"""What `PartywallMiddleware` answers where the app let a `QuotaExceeded` through."""

import math
import time

from partywall.context import current_tenant
from partywall.decision import QUOTA_EXCEEDED
from partywall.errors import QuotaExceeded
from partywall.responses import Denial


def over_quota(exc: QuotaExceeded) -> Denial:
    """429, as for a limit: the problem names the resources that had no room.

    `Retry-After` is there where all of them refill and could then have had room; by this process's
    clock, since no answer of a sidecar says how late it is.
    """
    problem: dict[str, object] = {
        "type": QUOTA_EXCEEDED,
        "title": "Quota exceeded",
        "status": 429,
        "detail": f"{str(exc)[:1].upper()}{str(exc)[1:]}.",
        "violated-policies": list(exc.denied),
        "tenant": exc.tenant,
    }
    tenant = current_tenant(default=None)
    if tenant is not None and tenant.id == exc.tenant:
        problem["tier"] = tenant.tier
    seconds = _seconds_to_refill(exc)
    headers = {} if seconds is None else {"Retry-After": str(seconds)}
    return Denial(429, problem, headers)


def _seconds_to_refill(exc: QuotaExceeded) -> int | None:
    latest = 0.0
    for resource in exc.denied:
        quota = exc.outcome.find(resource)
        if quota is None or quota.resets_at is None:
            return None
        if quota.limit is not None and exc.items.get(resource, 0) > quota.limit:
            return None
        latest = max(latest, quota.resets_at.timestamp())
    return max(1, math.ceil(latest - time.time()))
