"""The CSV file of `partywall tenants import`, checked whole before any of it is sent.

Source: docs/contract.md section 4, Tenants; RFC 4180 for CSV.
"""

import csv
import re
from typing import Any, NamedTuple, TextIO

from pydantic import ValidationError

from partywall_service.api.errors import faults_of
from partywall_service.api.schemas import MEANINGS, TenantChange
from partywall_service.cli.csv_file import is_utf8, opened, records
from partywall_service.cli.errors import CliError
from partywall_service.cli.output import printable
from partywall_service.names import TENANT_PATTERN, is_tenant_id
from partywall_service.policy.values import expected_one_of, shown

NEEDED = ("tenant", "tier")
COLUMNS = (*NEEDED, "name", "status", "domains")

_BETWEEN_DOMAINS = re.compile(r"[;\s]+")


class Row(NamedTuple):
    """One tenant of the file.

    Attributes:
        line: where it begins, from 1.
        tenant: its id.
        change: the body of its PUT, as JSON: a large file stays small in memory.
    """

    line: int
    tenant: str
    change: bytes


def read_rows(file: str) -> list[Row]:
    """The tenants in `file`, all of them right as far as can be told without a sidecar.

    Args:
        file: a path, or `-` for standard input.

    Raises:
        CliError: one line for each fault of the file, in their order.
    """
    name = "standard input" if file == "-" else printable(file)
    checker = _Checker()
    try:
        with opened(file) as text:
            checker.read(text)
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise CliError(f"cannot read {name}: {getattr(exc, 'strerror', None) or exc}") from exc
    if checker.faults:
        raise CliError(
            "\n".join(f"{name}: line {line}: {printable(said)}" for line, said in checker.faults)
        )
    return checker.rows


class _Checker:
    """Reads records into rows, and gathers what is wrong with them."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.faults: list[tuple[int, str]] = []
        self._tenants: dict[str, int] = {}
        self._domains: dict[str, int] = {}

    def read(self, text: TextIO) -> None:
        """Takes the whole file; without a right header nothing below it can be understood."""
        lines = records(text)
        columns = self._header(*next(lines, (1, [])))
        if self.faults:
            return
        for line, record in lines:
            cells = self._cells(line, record)
            if cells is None:
                continue
            if len(cells) != len(columns):
                expected = f"expected {len(columns)} cells, as the header has"
                self._fault(line, f"{expected}; got {len(cells)}")
            else:
                self._row(
                    line, {column: it for column, it in zip(columns, cells, strict=True) if it}
                )
        if not self.rows and not self.faults:
            self._fault(1, "expected tenants below the header; got none")

    def _header(self, line: int, record: list[str] | csv.Error) -> list[str]:
        columns = self._cells(line, record) or []
        if not columns and not self.faults:
            self._fault(line, f"expected a header, such as {','.join(COLUMNS)}; got an empty file")
        elif len(columns) == 1 and re.search("[;\t]", columns[0]):
            self._fault(line, f"expected commas between the columns; got {shown(columns[0])}")
        else:
            for column in dict.fromkeys(columns):
                if column not in COLUMNS:
                    self._fault(line, f"column: {expected_one_of(COLUMNS, column)}")
                elif columns.count(column) > 1:
                    self._fault(line, f"expected the column {column} once")
            for column in NEEDED:
                if columns and column not in columns:
                    self._fault(line, f"expected a column {column}")
        return columns

    def _row(self, line: int, given: dict[str, str]) -> None:
        """Checks one tenant by the rules of the API itself; `given` has no empty cell."""
        before = len(self.faults)
        tenant = given.pop("tenant", "")
        if not is_tenant_id(tenant):
            self._fault(line, f"tenant: expected {MEANINGS[TENANT_PATTERN]}; got {shown(tenant)}")
        elif (first := self._tenants.setdefault(tenant, line)) != line:
            self._fault(line, f"tenant: {tenant!r} is on line {first} already")
        asked: dict[str, Any] = dict(given)
        if domains := [one for one in _BETWEEN_DOMAINS.split(asked.pop("domains", "")) if one]:
            asked["domains"] = domains
        try:
            change = TenantChange.model_validate(asked)
        except ValidationError as exc:
            in_body = [{**error, "loc": ("body", *error["loc"])} for error in exc.errors()]
            for fault in faults_of(in_body):
                self._fault(line, f"{fault['field']}: {fault['reason']}")
            return
        for domain in change.domains or ():
            if (first := self._domains.setdefault(domain, line)) != line:
                self._fault(line, f"domains: {domain!r} is on line {first} already")
        if len(self.faults) == before:
            body = change.model_dump_json(exclude_none=True).encode()
            self.rows.append(Row(line, tenant, body))

    def _cells(self, line: int, record: list[str] | csv.Error) -> list[str] | None:
        """The record's cells, if it is one."""
        if isinstance(record, csv.Error):
            self._fault(line, f"expected CSV; {record}")
            return None
        if not is_utf8(record):
            self._fault(line, "expected text in UTF-8")
            return None
        return record

    def _fault(self, line: int, said: str) -> None:
        self.faults.append((line, said))
