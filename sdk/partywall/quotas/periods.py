"""Calendar periods in UTC: days, weeks from Monday, months. Pure."""

from datetime import UTC, datetime, timedelta

from partywall.quotas.records import Period


def period_start(per: Period, moment: datetime) -> datetime:
    """The first instant of the period that `moment` is in.

    Args:
        per: the kind of period.
        moment: any instant, with its zone.
    """
    day = moment.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    match per:
        case "day":
            return day
        case "week":
            return day - timedelta(days=day.weekday())
        case "month":
            return day.replace(day=1)


def period_end(per: Period, start: datetime) -> datetime:
    """The first instant after the period that begins at `start`."""
    start = start.astimezone(UTC)
    match per:
        case "day":
            return start + timedelta(days=1)
        case "week":
            return start + timedelta(days=7)
        case "month":
            # 31 days later is in the next month, whatever the length of this one.
            return (start + timedelta(days=31)).replace(day=1)
