"""All rows of one tenant, whatever table they are in, as JSON carries them.

What is small comes in one snapshot. What may be millions of rows comes a page at a time, so that
no transaction stays open for as long as somebody reads; these tables are append only, or of a time
that is over, so their pages fit together.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, NamedTuple

from sqlalchemy import Column, Select, Table, select, tuple_

from partywall_service.ledger.base import Store
from partywall_service.ledger.errors import translated
from partywall_service.ledger.tables import (
    audit,
    neighbours,
    notices,
    overrides,
    quota_ledger,
    quota_levels,
    quota_operations,
    quota_reservations,
    tenant_domains,
    tenants,
    tokens,
    usage_days,
    usage_hours,
    usage_minutes,
)

PAGE = 2000
"""Rows that one statement reads."""

Row = dict[str, Any]


class Told(NamedTuple):
    """How a table is told of.

    Attributes:
        kind: what its rows are called.
        table: which.
        left_out: columns that nobody is told.
        further: what is said of each row besides.
    """

    kind: str
    table: Table
    left_out: Sequence[str] = ()
    further: Mapping[str, Any] = {}


SMALL = (
    Told("tenant", tenants),
    Told("domain", tenant_domains),
    Told("override", overrides),
    Told("token", tokens, left_out=("digest",)),
    Told("quota", quota_levels, further={"durable": True}),
    Told("neighbour", neighbours),
)
"""A few rows each."""

LARGE = (
    Told("reservation", quota_reservations),
    Told("operation", quota_operations, left_out=("fingerprint",)),
    Told("ledger", quota_ledger),
    Told("notice", notices),
    Told("usage", usage_days, further={"step": "day"}),
    Told("usage", usage_hours, further={"step": "hour"}),
    Told("usage", usage_minutes, further={"step": "minute"}),
    Told("audit", audit),
)
"""Any number of rows, each told of in the order of its key."""


class Rows(Store):
    """Reads them; any method raises `LedgerUnavailable` when PostgreSQL does not answer."""

    async def small(self, tenant: str) -> list[Row]:
        """Those of the tables with a few, as they stood at one instant."""
        found: list[Row] = []
        with translated():
            at_one_instant = self._engine.execution_options(isolation_level="REPEATABLE READ")
            async with at_one_instant.begin() as connection:
                for told in SMALL:
                    rows = await connection.execute(_query(told, tenant))
                    found += [_row(told, row) for row in rows.mappings()]
        return found

    async def large(self, tenant: str) -> AsyncIterator[list[Row]]:
        """The others, a page at a time."""
        for told in LARGE:
            key = _key(told.table)
            query = _query(told, tenant).limit(PAGE)
            after: Select[Any] | None = query
            while after is not None:
                async with self._reading() as connection:
                    rows = (await connection.execute(after)).mappings().all()
                yield [_row(told, row) for row in rows]
                after = None
                if len(rows) == PAGE:
                    last = tuple(rows[-1][column.name] for column in key)
                    after = query.where(tuple_(*key) > last)


def _query(told: Told, tenant: str) -> Select[Any]:
    columns = [one for one in told.table.columns if one.name not in told.left_out]
    return select(*columns).where(told.table.c.tenant == tenant).order_by(*_key(told.table))


def _key(table: Table) -> list[Column[Any]]:
    """What the rows of one tenant are told apart by."""
    return [one for one in table.primary_key if one.name != "tenant"] or [table.c.tenant]


def _row(told: Told, row: Mapping[Any, Any]) -> Row:
    # An override and a notice are of a kind themselves.
    values = {"what" if name == "kind" else name: value for name, value in row.items()}
    return {"kind": told.kind, **told.further, **values}
