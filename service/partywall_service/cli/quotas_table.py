"""The table of a tenant's quotas: as wide as its numbers need, with bars in what room is left."""

from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from partywall_service.cli import quotas_text as words
from partywall_service.cli.output import instant, printable
from partywall_service.quotas.model import QuotaState

NARROWEST, WIDEST = 8, 30
"""Characters of a bar."""

_GAP = 2
"""Between two columns: one of padding, one of the box."""


class _Column(NamedTuple):
    name: str
    cells: list[str]

    @property
    def width(self) -> int:
        return max(len(self.name), *map(len, self.cells))


def print_quotas(
    console: Console, quotas: Sequence[QuotaState], *, now: datetime, exact: bool = False
) -> None:
    """Prints a line for each quota. A number is never cut: the console is made wider for it.

    Args:
        console: where.
        quotas: at least one.
        now: what refills are told from.
        exact: bytes as whole numbers, and refills as instants.
    """
    names = _Column("Resource", [printable(one.resource) for one in quotas])
    numbers = _numbers(quotas, now, exact)
    others = names.width + sum(_GAP + column.width for column in numbers)
    width = min(max(console.width - others - _GAP, NARROWEST), WIDEST)
    console.width = max(console.width, others + _GAP + width)
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    for name in (names.name, "Use"):
        table.add_column(name, no_wrap=True)
    for column in numbers:
        table.add_column(column.name, justify="right", no_wrap=True)
    for place, quota in enumerate(quotas):
        cells = [Text(column.cells[place]) for column in numbers]
        table.add_row(Text(names.cells[place]), words.bar(quota, width), *cells)
    console.print(table)


def _numbers(quotas: Sequence[QuotaState], now: datetime, exact: bool) -> list[_Column]:
    """The columns after the bar; those that would have nothing in them are left out."""

    def amount(amount: int, unit: str) -> str:
        return words.amount_text(amount, unit, exact=exact)

    columns = [
        _Column("%", [words.percent_text(one) for one in quotas]),
        _Column("Used", [amount(one.used, one.unit) for one in quotas]),
    ]
    if any(one.reserved for one in quotas):
        held = [amount(one.reserved, one.unit) for one in quotas]
        columns.append(_Column("Reserved", held))
    columns.append(_Column("Limit", [words.limit_text(one, exact=exact) for one in quotas]))
    if any(one.crossed for one in quotas):
        crossed = [f"! {one.crossed}%" if one.crossed else "-" for one in quotas]
        columns.append(_Column("Crossed", crossed))
    if any(one.resets_at for one in quotas):
        refills = [_refill(one.resets_at, now, exact) for one in quotas]
        columns.append(_Column("Refills (UTC)" if exact else "Refills", refills))
    return columns


def _refill(at: datetime | None, now: datetime, exact: bool) -> str:
    if at is None:
        return "-"
    return instant(at.isoformat()) if exact else words.waiting_text(at, now)
