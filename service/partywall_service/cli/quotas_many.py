"""Counts of many tenants: drift is printed as it is found, what is wrong told as it is met."""

import typer

from partywall_service.cli.client import Refused, Sidecar
from partywall_service.cli.output import printable
from partywall_service.cli.quotas_answers import read_quotas
from partywall_service.cli.quotas_drift import Drift, drifts, item_fault, repair
from partywall_service.cli.quotas_file import Count

_LINE = "{:<24}  {:<16}  {:>12}  {:>12}  {:>10}"


class Work:
    """One file's reconciliation, and how far it is; drift is printed as it is found.

    Attributes:
        failed: lines that are wrong, refused, or not repaired though they drifted.
    """

    def __init__(self, api: Sidecar, *, dry_run: bool) -> None:
        self.failed = 0
        self._api = api
        self._dry_run = dry_run
        self._compared = self._drifted = self._repaired = 0

    def refuse(self, line: int, said: str) -> None:
        """Tells what is wrong with a line."""
        self.failed += 1
        typer.echo(f"line {line}: {printable(said)}", err=True)

    def take(self, tenant: str, counts: list[Count]) -> None:
        """Compares the counts of one tenant, then repairs them.

        Raises:
            CliError: no other line would fare better.
        """
        try:
            quotas = read_quotas(self._api, tenant)
        except Refused as exc:
            for count in counts:
                self.refuse(count.line, f"{tenant}: {exc}")
            return
        right: dict[str, Count] = {}
        for count in counts:
            resource = count.item.resource
            if said := item_fault(count.item, quotas):
                self.refuse(count.line, f"{tenant}: {said}")
            elif (first := right.setdefault(resource, count)) is not count:
                said = f"{resource}: it is on line {first.line} already"
                self.refuse(count.line, f"{tenant}: {said}")
        found = drifts([count.item for count in right.values()], quotas)
        for drift in found:
            self._report(tenant, drift)
        for drift in found:
            self._repair(tenant, drift, right[drift.resource].line)

    @property
    def so_far(self) -> str:
        """The counts."""
        repaired = "nothing was changed" if self._dry_run else f"repaired {self._repaired:,}"
        return (
            f"compared {self._compared:,}, drifted {self._drifted:,}, {repaired}, "
            f"failed {self.failed:,}"
        )

    def _report(self, tenant: str, drift: Drift) -> None:
        self._compared += 1
        if not drift.drift:
            return
        if not self._drifted:
            typer.echo(_LINE.format("Tenant", "Resource", "Recorded", "Counted", "Drift"))
        self._drifted += 1
        typer.echo(_LINE.format(tenant, drift.resource, *drift.texts))

    def _repair(self, tenant: str, drift: Drift, line: int) -> None:
        said = drift.fault
        if said is None and drift.drift and not self._dry_run:
            try:
                said = repair(self._api, tenant, drift)
            except Refused as exc:
                said = str(exc)
            self._repaired += said is None
        if said is not None:
            self.refuse(line, f"{tenant}: {said}")
