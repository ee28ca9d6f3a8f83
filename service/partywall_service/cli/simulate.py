"""`partywall simulate`: what a policy would have done to yesterday's traffic."""

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from partywall_service.cli.config import rates_text, read_policy
from partywall_service.cli.errors import CliError
from partywall_service.cli.options import Format, FormatOption, example

if TYPE_CHECKING:
    from partywall_service.accesslog import AccessLog
    from partywall_service.policy.model import Limit, Policy
    from partywall_service.simulate import Report, Simulation, TenantOf

EPILOG = example(
    "partywall simulate access.log.gz --tier free --limit requests",
    "zcat -f access.log* | partywall simulate - --tier pro --format json",
    r"partywall simulate access.log --tier pro --tenant-from '/t/(\w+)/'",
)

TOP = 20
"""Tenants the table shows; JSON has all."""

_STEP = 1000
"""Lines between two movements of the progress bar."""

_COARSE_SECONDS = 10
"""Below this window a log's whole seconds distort what is decided by more than a tenth."""


def simulate(
    log: Annotated[
        str,
        typer.Argument(
            metavar="LOG",
            help="An access log, Common or Combined, plain or gzip; - for stdin.",
            show_default=False,
        ),
    ],
    tier: Annotated[
        str, typer.Option(metavar="TIER", help="The tier everyone is put in.", show_default=False)
    ],
    limit: Annotated[
        str, typer.Option(metavar="LIMIT", help="The limit to decide by.")
    ] = "requests",
    config: Annotated[
        Path, typer.Option(metavar="FILE", envvar="PARTYWALL_CONFIG", help="The policy.")
    ] = Path("quotas.toml"),
    tenant_from: Annotated[
        str,
        typer.Option(
            metavar="host|user|REGEX",
            help="What tells the tenant: the client's address, the user, or the group of a regular "
            "expression found in the line.",
        ),
    ] = "host",
    form: FormatOption = Format.table,
) -> None:
    """Replay an access log in its own time: who would have been denied, under which tier."""
    from partywall_service import simulate as arithmetic
    from partywall_service.accesslog import LogError, open_log

    tenant_of = _tenant_of(tenant_from)
    wanted = _find_limit(read_policy(config), config, tier, limit)
    simulation = arithmetic.Simulation(wanted, tenant_of)
    try:
        with open_log(log) as lines:
            report = _run(simulation, lines)
    except LogError as exc:
        raise CliError(str(exc)) from exc
    _print(report, form, log, tier, wanted)


def _tenant_of(spec: str) -> "TenantOf":
    from partywall_service.simulate import tenant_from

    try:
        return tenant_from(spec)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--tenant-from") from exc


def _find_limit(policy: "Policy", config: Path, tier: str, name: str) -> "Limit":
    if tier not in policy.tiers:
        raise CliError(f"{config} has no tier {tier!r}; expected one of {', '.join(policy.tiers)}")
    limit = policy.tiers[tier].limits.get(name)
    if limit is None:
        known = ", ".join(sorted(policy.limit_names)) or "none, as it names no limit"
        raise CliError(f"{config} has no limit {name!r}; expected one of {known}")
    return limit


def _run(simulation: "Simulation", log: "AccessLog") -> "Report":
    from partywall_service.cli import output

    with output.progress() as progress:
        reading = progress.add_task("Reading", total=log.size)
        for count, line in enumerate(log):
            if count % _STEP == 0:
                progress.update(reading, completed=log.consumed)
            simulation.take(line)
        progress.update(reading, total=log.consumed, completed=log.consumed)
        deciding = progress.add_task("Deciding", total=simulation.requests)
        return simulation.decide(lambda count: progress.advance(deciding, count))


def _print(report: "Report", form: Format, log: str, tier: str, limit: "Limit") -> None:
    from partywall_service.cli import output

    if report.skipped_lines and not report.requests:
        output.note(
            "no line was a request of a tenant; expected Common or Combined log format, and "
            "--tenant-from to fit it"
        )
    if form is Format.json:
        output.print_json(report.as_dict())
        return
    console = output.stdout()
    for sentence in _summary(report, log, tier, limit):
        console.print(output.printable(sentence), markup=False)
    if not report.tenants:
        return
    rows = [
        (
            one.tenant,
            f"{one.requests:,}",
            f"{one.admitted:,}",
            f"{one.denied:,}",
            _share(one.denied, one.requests),
            _share(one.denied, report.denied),
        )
        for one in report.tenants[:TOP]
    ]
    columns = ("Tenant", "Requests", "Admitted", "Denied", "of its own", "of all denied")
    console.print()
    console.print(output.table(columns, rows, right=5))
    if len(report.tenants) > TOP:
        console.print(f"and {len(report.tenants) - TOP:,} more (--format json shows all)")


def _summary(report: "Report", log: str, tier: str, limit: "Limit") -> list[str]:
    name = "standard input" if log == "-" else Path(log).name
    counts = f"{report.requests:,} requests of {len(report.tenants):,} tenants"
    said = [f"{name}: {counts}; lines skipped: {report.skipped_lines:,}"]
    if report.first is not None and report.last is not None:
        said.append(f"from {_instant(report.first)} to {_instant(report.last)} UTC")
    said.append(
        f"tier {tier}, limit {limit.name} ({rates_text(limit.rates)}): {report.admitted:,} "
        f"admitted, {report.denied:,} denied ({_share(report.denied, report.requests)})"
    )
    if not limit.enforce:
        said.append("The limit only observes: a sidecar would admit what is shown as denied.")
    if any(rate.window < _COARSE_SECONDS for rate in limit.rates):
        said.append(
            "Logs know whole seconds: under a window this short they look denser than they were."
        )
    return said


def _instant(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.1%}" if whole else "-"
