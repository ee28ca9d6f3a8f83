"""The CSV file of `partywall quotas reconcile --from`, read as it is worked on."""

import csv
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from partywall_service.cli.csv_file import opened
from partywall_service.cli.errors import CliError
from partywall_service.cli.output import printable
from partywall_service.cli.quotas_items import Item, parse_level
from partywall_service.csv_records import is_utf8, records
from partywall_service.names import EXPECTED_TENANT, is_tenant_id
from partywall_service.policy.values import expected_one_of, shown

NEEDED = ("tenant", "resource", "used")
COLUMNS = (*NEEDED, "version")


class Count(NamedTuple):
    """One line of the file.

    Attributes:
        line: where it begins, from 1.
        tenant: whose.
        item: what was counted.
    """

    line: int
    tenant: str
    item: Item


def read_counts(file: str, fault: Callable[[int, str], None]) -> Iterator[Count]:
    """Every line that is right, as it is read.

    Args:
        file: a path, or `-` for standard input.
        fault: told the number of each other line, and what is wrong with it.

    Raises:
        CliError: the file cannot be read, or the header is wrong, without which nothing below it
            can be understood.
    """
    name = "standard input" if file == "-" else printable(file)
    try:
        with opened(file) as text:
            lines = records(text)
            columns = _header(*next(lines, (1, [])))
            for line, record in lines:
                try:
                    count = _count(line, columns, _cells(record))
                except ValueError as exc:
                    fault(line, str(exc))
                else:
                    yield count
    except (OSError, ValueError) as exc:  # ValueError: a NUL in the path
        raise CliError(f"cannot read {name}: {getattr(exc, 'strerror', None) or exc}") from exc


def _header(line: int, record: list[str] | csv.Error) -> list[str]:
    said = None
    columns: list[str] = []
    try:
        columns = _cells(record)
    except ValueError as exc:
        said = str(exc)
    if not columns and said is None:
        said = f"expected a header, such as {','.join(NEEDED)}; got an empty file"
    elif len(columns) == 1 and re.search("[;\t]", columns[0]):
        said = f"expected commas between the columns; got {shown(columns[0])}"
    for column in columns if said is None else ():
        if column not in COLUMNS:
            said = f"column: {expected_one_of(COLUMNS, column)}"
        elif columns.count(column) > 1:
            said = f"expected the column {column} once"
    missing = [column for column in NEEDED if column not in columns]
    if said is None and missing:
        said = f"expected a column {missing[0]}"
    if said is not None:
        raise CliError(f"line {line}: {said}")
    return columns


def _count(line: int, columns: list[str], cells: list[str]) -> Count:
    if len(cells) != len(columns):
        raise ValueError(f"expected {len(columns)} cells, as the header has; got {len(cells)}")
    given = dict(zip(columns, cells, strict=True))
    tenant = given["tenant"]
    if not is_tenant_id(tenant):
        raise ValueError(f"{EXPECTED_TENANT}; got {shown(tenant)}")
    version = given.get("version") or None
    return Count(line, tenant, parse_level(given["resource"], given["used"], version, least=0))


def _cells(record: list[str] | csv.Error) -> list[str]:
    if isinstance(record, csv.Error):
        raise ValueError(f"expected CSV; {record}")
    if not is_utf8(record):
        raise ValueError("expected text in UTF-8")
    return record
