"""`partywall config`: the policy file, before a sidecar reads it."""

from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli.errors import CliError
from partywall_service.cli.options import example

if TYPE_CHECKING:
    from partywall_service.policy.model import Limit, Policy, Quota, Rate, Tier, Unit

app = typer.Typer(
    no_args_is_help=True,
    help="The policy file.",
    epilog=example("partywall config check quotas.toml"),
)

TIERS_ABREAST = 4
"""As many columns as 80 characters hold."""

_WINDOWS = {1: "second", 60: "minute", 3600: "hour", 86_400: "day", 2_592_000: "month"}
_SIZES = {"TiB": 2**40, "GiB": 2**30, "MiB": 2**20, "KiB": 2**10}


@app.command("check", epilog=example("partywall config check quotas.toml"))
def check(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The policy.", show_default=False)],
) -> None:
    """Check a policy file and show what each tier gets, or every error there is in it."""
    from partywall_service.cli import output

    policy = read_policy(file)
    console = output.stdout()
    for tiers in _abreast(list(policy.tiers.values())):
        rows = ((name, *cells) for name, cells in _rows(policy, tiers))
        console.print(output.table(["", *(tier.name for tier in tiers)], rows))
        console.print()
    console.print(f"{output.printable(file)} is valid: {_summary(policy)}", markup=False)


def read_policy(file: Path) -> "Policy":
    """The policy in `file`.

    Raises:
        CliError: one line for each of its errors.
    """
    from partywall_service.policy.loader import PolicyError, load_policy

    try:
        return load_policy(file)
    except PolicyError as exc:
        raise CliError(str(exc)) from exc


def rates_text(rates: "Sequence[Rate]") -> str:
    """Rates as quotas.toml writes them."""
    return ", ".join(map(_rate_text, rates)) or "unlimited"


def _rate_text(rate: "Rate") -> str:
    longest = max(length for length in _WINDOWS if rate.window % length == 0)
    count = rate.window // longest
    return (
        f"{rate.quota}/{_WINDOWS[longest]}"
        if count == 1
        else (f"{rate.quota} per {count} {_WINDOWS[longest]}s")
    )


def _abreast(tiers: "list[Tier]") -> "Iterator[list[Tier]]":
    rest = iter(tiers)
    while some := list(islice(rest, TIERS_ABREAST)):
        yield some


def _summary(policy: "Policy") -> str:
    count = len(policy.tiers)
    tiers = f"{count} tier{'' if count == 1 else 's'}"
    if policy.default_tier is None:
        return f"{tiers}; tenants that nobody registered are refused"
    return f"{tiers}; tenants that nobody registered get {policy.default_tier}"


def _rows(policy: "Policy", tiers: "list[Tier]") -> Iterator[tuple[str, list[str]]]:
    yield "weight", [f"{tier.weight:g}" for tier in tiers]
    if any(tier.features for tier in policy.tiers.values()):
        yield "features", [", ".join(tier.features) or "-" for tier in tiers]
    for name in sorted(policy.limit_names):
        yield f"limits.{name}", [_limit_text(tier.limits.get(name)) for tier in tiers]
    quotas = {name: None for tier in policy.tiers.values() for name in tier.quotas}
    for name in quotas:
        unit = policy.resources[name].unit
        yield f"quotas.{name}", [_quota_text(tier.quotas.get(name), unit) for tier in tiers]
    yield "jobs.concurrency", [_amount_text(tier.jobs.concurrency) for tier in tiers]
    yield "jobs.max_queued", [_amount_text(tier.jobs.max_queued) for tier in tiers]
    yield "jobs.rate", [rates_text(tier.jobs.rates) for tier in tiers]
    if any(tier.jobs.queue for tier in policy.tiers.values()):
        yield "jobs.queue", [tier.jobs.queue or "-" for tier in tiers]


def _limit_text(limit: "Limit | None") -> str:
    if limit is None:
        return "unlimited"
    notes = [] if limit.enforce else ["observed only"]
    if limit.on_outage != "local":
        notes.append(f"{limit.on_outage} on outage")
    return " ".join([rates_text(limit.rates), *(f"({note})" for note in notes)])


def _quota_text(quota: "Quota | None", unit: "Unit") -> str:
    if quota is None or quota.limit is None:
        return "unlimited"
    amount = _size_text(quota.limit) if unit == "bytes" else _amount_text(quota.limit)
    return amount if quota.per is None else f"{amount} a {quota.per}"


def _size_text(size: int) -> str:
    for unit, count in _SIZES.items():
        if size >= count and size % count == 0:
            return f"{size // count} {unit}"
    return f"{size} B"


def _amount_text(amount: int | None) -> str:
    return "unlimited" if amount is None else str(amount)
