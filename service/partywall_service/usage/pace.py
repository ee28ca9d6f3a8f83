"""How long until a quota is full, at the pace of late. Pure."""

from datetime import datetime, timedelta

from partywall.quotas.periods import period_end, period_start
from partywall_service.policy.model import Quota
from partywall_service.usage.levels import Known

LOOKBACK = timedelta(days=7)
"""Over which growth is measured, where the period is not shorter."""

_DAY = timedelta(days=1)


def lookback(start: datetime, end: datetime) -> datetime:
    """From when growth up to `end` is measured, in a period that begins at `start`."""
    return max(start, end - LOOKBACK).replace(second=0, microsecond=0)


def level_at(known: Known | None, quota: Quota, moment: datetime) -> int:
    """A level as it stood just before an instant; a refill since its last change emptied it."""
    if known is None or known.at is None:
        return 0
    if quota.per is not None and period_start(quota.per, _just_before(moment)) > known.at:
        return 0
    return known.value


def days_until_full(
    quota: Quota, used: int, since: datetime, before: Known | None, end: datetime
) -> float | None:
    """Days from `end` until a quota is full, if it goes on growing as it did.

    A day's growth is never told from less than a day: an hour in which somebody moved in is not
    how they live.

    Args:
        quota: what applies.
        used: at the end.
        since: from when growth is measured.
        before: what is known of the level then.
        end: aware.

    Returns:
        0 when it is full; None when it is unlimited, does not grow, or refills before.
    """
    if quota.limit is None:
        return None
    if used >= quota.limit:
        return 0.0
    base = level_at(before, quota, since)
    refills = None
    if quota.per is not None:
        began = period_start(quota.per, _just_before(end))
        refills = period_end(quota.per, began)
        if began > since:
            since, base = began, 0
    if before is not None and before.at is None and before.first is not None:
        since = max(since, before.first)
    grown = used - base
    if grown <= 0:
        return None
    days = (quota.limit - used) * max((end - since) / _DAY, 1.0) / grown
    if refills is not None and days > (refills - end) / _DAY:
        return None
    return days


def _just_before(moment: datetime) -> datetime:
    return moment - timedelta(microseconds=1)
