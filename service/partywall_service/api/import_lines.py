"""The lines of an import of tenants: JSON or CSV, each checked by the rules of a single PUT.

Source: docs/api.md, Tenants; RFC 4180 for CSV.
"""

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, NamedTuple, TextIO

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

from partywall_service.api.errors import faults_of
from partywall_service.api.schemas import MEANINGS, TenantChange, TenantId
from partywall_service.csv_records import is_utf8, records
from partywall_service.names import TENANT_PATTERN, is_tenant_id
from partywall_service.policy.values import expected_one_of, shown

MAX_LINES = 10_000
"""Tenants of one import: PostgreSQL takes them in about a second."""

NEEDED = ("tenant", "tier")
COLUMNS = (*NEEDED, "name", "status", "domains")

_BETWEEN_DOMAINS = re.compile(r"[;\s]+")


class TenantLine(TenantChange):
    """A tenant of an import: what its PUT would say, and its id."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"tenant": "acme", "tier": "pro", "name": "Acme Ltd"}]}
    )

    tenant: TenantId


class Fault(NamedTuple):
    """What is wrong with a line.

    Attributes:
        where: the line: a place in a list, from 0; or a line of text, from 1.
        field: of the line; empty where it is all of it.
        reason: what was expected, and what came.
    """

    where: int
    field: str
    reason: str

    def __str__(self) -> str:
        return f"{self.field}: {self.reason}" if self.field else self.reason


class Lines:
    """Lines as they are read, and what is wrong with them.

    Args:
        take: told of each line that is right by itself, and where it is.
        called: how a fault calls the place of another line.
    """

    def __init__(
        self, take: Callable[[int, TenantLine], None], called: Callable[[int], str]
    ) -> None:
        self.faults: list[Fault] = []
        self._take = take
        self._called = called
        self._tenants: dict[str, int] = {}
        self._domains: dict[str, int] = {}

    def add(self, where: int, line: TenantLine) -> None:
        """A line whose fields are right; no tenant and no domain may be there twice."""
        before = len(self.faults)
        self._once(self._tenants, where, "tenant", line.tenant)
        for domain in line.domains or ():
            self._once(self._domains, where, "domains", domain)
        if len(self.faults) == before:
            self._take(where, line)

    def fault(self, where: int, field: str, reason: str) -> None:
        """Says what is wrong with a line."""
        self.faults.append(Fault(where, field, reason))

    def refuse(self, where: int, fields: Sequence[Mapping[str, Any]]) -> None:
        """Says what pydantic found wrong with a line."""
        for fault in faults_of({**one, "loc": ("body", *one["loc"])} for one in fields):
            self.fault(where, "" if fault["field"] == "body" else fault["field"], fault["reason"])

    def _once(self, seen: dict[str, int], where: int, field: str, value: str) -> None:
        first = seen.setdefault(value, where)
        if first != where:
            self.fault(where, field, f"{value!r} is {self._called(first)} already")


_list = TypeAdapter(Annotated[list[TenantLine], Field(max_length=MAX_LINES)])

JSON_SCHEMA = {
    "type": "array",
    "maxItems": MAX_LINES,
    "items": TenantLine.model_json_schema(),
}
"""Of such a list, with nothing in it that stands elsewhere."""


def read_json(body: bytes, take: Callable[[int, TenantLine], None]) -> list[Fault]:
    """Reads a JSON list.

    Args:
        body: what was sent.
        take: told of each line that is right, and its place from 0.

    Returns:
        What is wrong, in the order of the lines.

    Raises:
        ValueError: it is no such list; with the reason.
    """
    lines = Lines(take, lambda where: f"at [{where}]")
    try:
        for where, line in enumerate(_list.validate_json(body)):
            lines.add(where, line)
    except ValidationError as exc:
        by_line: dict[int, list[Any]] = {}
        for error in exc.errors(include_url=False):
            if not error["loc"]:
                raise ValueError(_no_list(error)) from exc
            place, *inner = error["loc"]
            by_line.setdefault(int(place), []).append({**error, "loc": tuple(inner)})
        for place, errors in by_line.items():
            lines.refuse(place, errors)
    return lines.faults


def _no_list(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "json_invalid":
            return f"expected JSON: {error['ctx']['error']}"
        case "too_long":
            return f"expected at most {MAX_LINES:,} tenants"
        case _:
            return f"expected a list of tenants; got {shown(error['input'])}"


def read_csv(
    text: TextIO, take: Callable[[int, TenantLine], None], *, most: int | None = None
) -> list[Fault]:
    """Reads CSV with a header.

    Args:
        text: opened with `newline=""`, without a byte order mark; what is not UTF-8 as lone
            surrogates.
        take: told of each line that is right, and where it begins, from 1.
        most: how many lines there may be.

    Returns:
        What is wrong, in the order of the lines.
    """
    lines = Lines(take, lambda where: f"on line {where}")
    found = records(text)
    # Without a right header nothing below it can be understood.
    columns = _header(lines, *next(found, (1, [])))
    if not lines.faults:
        _body(lines, columns, found, most)
    return lines.faults


def text_of(body: bytes) -> TextIO:
    """A CSV body as `read_csv` takes it."""
    return io.StringIO(body.decode("utf-8-sig", "surrogateescape"), newline="")


def _header(lines: Lines, line: int, record: list[str] | csv.Error) -> list[str]:
    columns = _cells(lines, line, record) or []
    if not columns and not lines.faults:
        said = f"expected a header, such as {','.join(COLUMNS)}; got an empty file"
        lines.fault(line, "", said)
    elif len(columns) == 1 and re.search("[;\t]", columns[0]):
        lines.fault(line, "", f"expected commas between the columns; got {shown(columns[0])}")
    else:
        for column in dict.fromkeys(columns):
            if column not in COLUMNS:
                lines.fault(line, "column", expected_one_of(COLUMNS, column))
            elif columns.count(column) > 1:
                lines.fault(line, "", f"expected the column {column} once")
        for column in NEEDED:
            if columns and column not in columns:
                lines.fault(line, "", f"expected a column {column}")
    return columns


def _body(
    lines: Lines,
    columns: Sequence[str],
    found: Iterator[tuple[int, list[str] | csv.Error]],
    most: int | None,
) -> None:
    for number, (line, record) in enumerate(found, 1):
        if most is not None and number > most:
            lines.fault(line, "", f"expected at most {most:,} tenants")
            return
        cells = _cells(lines, line, record)
        if cells is None:
            continue
        if len(cells) != len(columns):
            expected = f"expected {len(columns)} cells, as the header has"
            lines.fault(line, "", f"{expected}; got {len(cells)}")
        else:
            _line(lines, line, {one: it for one, it in zip(columns, cells, strict=True) if it})


def _line(lines: Lines, line: int, given: dict[str, Any]) -> None:
    """Checks one tenant; `given` has no empty cell."""
    tenant = given.get("tenant", "")
    if not is_tenant_id(tenant):
        lines.fault(line, "tenant", f"expected {MEANINGS[TENANT_PATTERN]}; got {shown(tenant)}")
    if domains := [one for one in _BETWEEN_DOMAINS.split(given.pop("domains", "")) if one]:
        given["domains"] = domains
    try:
        lines.add(line, TenantLine.model_validate(given))
    except ValidationError as exc:
        told = [error for error in exc.errors(include_url=False) if error["loc"][0] != "tenant"]
        lines.refuse(line, told)


def _cells(lines: Lines, line: int, record: list[str] | csv.Error) -> list[str] | None:
    """The record's cells, if it is one."""
    if isinstance(record, csv.Error):
        lines.fault(line, "", f"expected CSV; {record}")
        return None
    if not is_utf8(record):
        lines.fault(line, "", "expected text in UTF-8")
        return None
    return record
