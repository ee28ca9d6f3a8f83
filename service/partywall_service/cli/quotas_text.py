"""Quotas in words and bars that need no colour: amounts, percents, how long until a refill."""

from datetime import datetime, timedelta

from rich.text import Text

from partywall_service.quotas.model import QuotaState

USED, RESERVED, FREE = "#", "+", "."
"""What a bar is made of; in ASCII, so that it is the same in any pipe and font."""

LEGEND = f"{USED} used   {RESERVED} reserved   {FREE} free"

_SIZES = ("KiB", "MiB", "GiB", "TiB")


def amount_text(amount: int, unit: str, *, exact: bool = False) -> str:
    """An amount as people read it; sizes are rounded down to tenths unless `exact`."""
    if unit != "bytes" or exact:
        return f"{amount:,}"
    size, name = 1, "B"
    for bigger in _SIZES:
        if amount < size * 1024:
            break
        size, name = size * 1024, bigger
    whole, rest = divmod(amount, size)
    return f"{whole:,}.{rest * 10 // size} {name}" if rest else f"{whole:,} {name}"


def limit_text(quota: QuotaState, *, exact: bool = False) -> str:
    """A limit and its period: `500 a month`."""
    if quota.limit is None:
        return "unlimited"
    amount = amount_text(quota.limit, quota.unit, exact=exact)
    return amount if quota.period is None else f"{amount} a {quota.period}"


def use_text(quota: QuotaState) -> str:
    """A quota in a few words: `3 of 5 used, 1 reserved, 1 remaining`."""
    used = amount_text(quota.used, quota.unit)
    parts = [f"{used} used" if quota.limit is None else f"{used} of {limit_text(quota)} used"]
    if quota.reserved:
        parts.append(f"{amount_text(quota.reserved, quota.unit)} reserved")
    if quota.remaining is not None:
        parts.append(f"{amount_text(quota.remaining, quota.unit)} remaining")
    return ", ".join(parts)


def percent_text(quota: QuotaState) -> str:
    """How much of the limit is used. Rounded down: 100% only when it is."""
    if not quota.limit:
        return "-"
    percent = quota.used * 100 // quota.limit
    return "<1%" if quota.used and not percent else f"{percent:,}%"


def bar(quota: QuotaState, width: int) -> Text:
    """A bar of `width` characters, brackets included; a dash for what has no limit.

    It looks full only when it is, and shows whatever is not nothing.
    """
    if quota.limit is None:
        return Text("-")
    inner = width - 2
    used = _cells(quota.used, quota.limit, inner)
    taken = _cells(quota.used + quota.reserved, quota.limit, inner)
    held = max(taken - used, 1 if quota.reserved and used < inner else 0)
    text = Text("[")
    text.append(USED * used, _colour(quota))
    text.append(RESERVED * held, "cyan")
    text.append(FREE * (inner - used - held), "dim")
    return text.append("]")


def waiting_text(until: datetime, now: datetime) -> str:
    """How long it is until then: `in 9 days`, of the largest unit there are two of."""
    wait = until - now
    if wait <= timedelta(0):
        return "now"
    for name, length in (
        ("days", timedelta(days=1)),
        ("hours", timedelta(hours=1)),
        ("minutes", timedelta(minutes=1)),
    ):
        if wait >= 2 * length:
            return f"in {wait // length} {name}"
    return "in less than 2 minutes"


def _cells(amount: int, limit: int, width: int) -> int:
    if not amount:
        return 0
    return width if amount >= limit else max(1, width * amount // limit)


def _colour(quota: QuotaState) -> str:
    if quota.limit is not None and quota.used >= quota.limit:
        return "red"
    return "green" if quota.crossed is None else "yellow"
