"""The CSV file of `partywall tenants import`, checked whole before any of it is sent."""

from typing import NamedTuple

from partywall_service.api.import_lines import TenantLine, read_csv
from partywall_service.cli.csv_file import opened
from partywall_service.cli.errors import CliError
from partywall_service.cli.output import printable


class Row(NamedTuple):
    """One tenant of the file.

    Attributes:
        line: where it begins, from 1.
        tenant: its id.
        json: as an import's list has it: a large file stays small in memory.
    """

    line: int
    tenant: str
    json: bytes


def read_rows(file: str) -> list[Row]:
    """The tenants in `file`, all of them right as far as can be told without a sidecar.

    Args:
        file: a path, or `-` for standard input.

    Raises:
        CliError: one line for each fault of the file, in their order.
    """
    name = "standard input" if file == "-" else printable(file)
    rows: list[Row] = []

    def take(line: int, tenant: TenantLine) -> None:
        json = tenant.model_dump_json(exclude_none=True).encode()
        rows.append(Row(line, tenant.tenant, json))

    try:
        with opened(file) as text:
            faults = read_csv(text, take)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise CliError(f"cannot read {name}: {getattr(exc, 'strerror', None) or exc}") from exc
    if faults:
        raise CliError(
            "\n".join(f"{name}: line {fault.where}: {printable(fault)}" for fault in faults)
        )
    if not rows:
        raise CliError(f"{name}: line 1: expected tenants below the header; got none")
    return rows
