"""The table of neighbours, and what the sidecar answers of them."""

from collections.abc import Sequence

import msgspec
from rich import box
from rich.table import Table
from rich.text import Text

from partywall_service.cli.output import cell

_STYLES = {"noisy": "bold red", "victim": "bold yellow"}


class Neighbor(msgspec.Struct, frozen=True):
    """A tenant with its verdict; what each field means is in docs/neighbours.md."""

    tenant: str
    tier: str
    requests: int
    denied: int
    share: float
    fair_share: float
    verdict: str
    reason: str


class Neighbors(msgspec.Struct, frozen=True):
    """Those with the largest shares, the largest first."""

    tenants: list[Neighbor]


def neighbors_table(neighbors: Sequence[Neighbor]) -> Table:
    """A line for each; where there is no room reasons are cut, not numbers."""
    built = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False, collapse_padding=True)
    built.add_column("Tenant", overflow="fold", min_width=8)
    built.add_column("Tier", no_wrap=True, overflow="ellipsis")
    for name in ("Requests", "Denied", "Share", "Fair"):
        built.add_column(name, justify="right", no_wrap=True)
    built.add_column("Verdict", no_wrap=True)
    built.add_column("Why", no_wrap=True, overflow="ellipsis")
    for one in neighbors:
        built.add_row(
            cell(one.tenant),
            cell(one.tier),
            f"{one.requests:,}",
            f"{one.denied:,}",
            f"{one.share:.1%}",
            f"{one.fair_share:.1%}",
            Text(one.verdict, style=_STYLES.get(one.verdict, "")),
            cell(one.reason),
        )
    return built


def summary(neighbors: Sequence[Neighbor]) -> str:
    """All lines in one."""
    noisy, victims = (
        sum(one.verdict == verdict for one in neighbors) for verdict in ("noisy", "victim")
    )
    return f"tenants shown: {len(neighbors):,}; noisy: {noisy:,}, victims: {victims:,}"
