"""The partitions of usage: made when a row needs one, dropped when nothing in it is kept any more.

A partition is built beside its table and then attached, and dropped only if its table is free at
that moment: readers never wait for long.
"""

from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from psycopg import sql
from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

LOCK_TIMEOUT = "200ms"
"""What a drop waits for those who read; they would queue behind it."""

_LOCK = text("SELECT pg_advisory_xact_lock(hashtextextended('partywall.usage.partitions', 0))")
_TABLE = text("""
    SELECT quote_ident(nspname), relname, quote_ident(pg_get_userbyid(relowner)),
        pg_get_userbyid(relowner) = current_user
    FROM pg_class JOIN pg_namespace ON pg_namespace.oid = relnamespace
    WHERE pg_class.oid = CAST(:table AS regclass)
""")
_PARTITIONS = text("""
    SELECT relname FROM pg_inherits JOIN pg_class ON pg_class.oid = inhrelid
    WHERE inhparent = CAST(:table AS regclass)
""")
_BUILD = sql.SQL("""
    CREATE TABLE {schema}.{partition} (LIKE {schema}.{table} INCLUDING ALL)
""")
_OWN = sql.SQL("ALTER TABLE {schema}.{partition} OWNER TO {owner}")
_ATTACH = sql.SQL("""
    ALTER TABLE {schema}.{table} ATTACH PARTITION {schema}.{partition}
    FOR VALUES FROM ({start}) TO ({end})
""")
_DROP = sql.SQL("DROP TABLE {schema}.{partition}")


class Partitioned(NamedTuple):
    """A table that is partitioned by time.

    Attributes:
        name: the table's.
        suffix: of its partitions' names, as `strftime` has it.
    """

    name: str
    suffix: str

    def first(self, moment: datetime) -> datetime:
        """When the partition begins that an instant is in."""
        return _parsed(moment.astimezone(UTC).strftime(self.suffix), self.suffix)

    def end(self, first: datetime) -> datetime:
        """When the partition ends that begins then."""
        if self.suffix == _HOUR:
            return first + timedelta(hours=1)
        # Far enough to be in the next month or year, and never in the one after.
        return self.first(first + timedelta(days=32 if self.suffix == _MONTH else 367))

    def partition(self, first: datetime) -> str:
        """The name of the partition that begins then."""
        return f"{self.name}_{first.strftime(self.suffix)}"

    def began(self, partition: str) -> datetime | None:
        """When a partition of that name begins; None where the name is none of ours."""
        try:
            return _parsed(partition.removeprefix(f"{self.name}_"), self.suffix)
        except ValueError:
            return None


_HOUR, _MONTH, _YEAR = "%Y%m%d%H", "%Y%m", "%Y"

USAGE_MINUTES = Partitioned("usage_minutes", _HOUR)
USAGE_HOURS = Partitioned("usage_hours", _MONTH)
USAGE_DAYS = Partitioned("usage_days", _YEAR)


async def ensure(
    connection: AsyncConnection, table: Partitioned, moments: Iterable[datetime]
) -> None:
    """Makes the partitions that rows of these instants need; two may do so at once.

    Args:
        connection: in the transaction that writes the rows.
        table: whose partitions.
        moments: aware.
    """
    needed = {table.first(moment) for moment in moments}
    if not await _missing(connection, table, needed):
        return
    await connection.execute(_LOCK)
    names = await _names(connection, table)
    for first in sorted(await _missing(connection, table, needed)):
        named = {
            **names,
            "partition": sql.Identifier(table.partition(first)),
            "start": sql.Literal(first.isoformat()),
            "end": sql.Literal(table.end(first).isoformat()),
        }
        for statement in (_BUILD, *((_OWN,) if "owner" in names else ()), _ATTACH):
            await connection.exec_driver_sql(statement.format(**named).as_string())


async def ended(connection: AsyncConnection, table: Partitioned, bound: datetime) -> list[str]:
    """The partitions with nothing at or after `bound`, oldest first."""
    found = {table.began(name): name for name in await _existing(connection, table)}
    return [found[first] for first in sorted(filter(None, found)) if table.end(first) <= bound]


async def drop(connection: AsyncConnection, table: Partitioned, partition: str) -> None:
    """Drops a partition.

    Raises:
        sqlalchemy.exc.OperationalError: somebody is reading; a later try may do it.
    """
    await connection.execute(text(f"SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"))
    named = {**await _names(connection, table), "partition": sql.Identifier(partition)}
    await connection.exec_driver_sql(_DROP.format(**named).as_string())


async def _existing(connection: AsyncConnection, table: Partitioned) -> set[str]:
    return set(await connection.scalars(_PARTITIONS, {"table": table.name}))


async def _missing(
    connection: AsyncConnection, table: Partitioned, needed: set[datetime]
) -> set[datetime]:
    existing = await _existing(connection, table)
    return {first for first in needed if table.partition(first) not in existing}


async def _names(connection: AsyncConnection, table: Partitioned) -> dict[str, sql.Composable]:
    """The table, its schema, and its owner where that is not who is connected."""
    schema, name, owner, is_ours = (await connection.execute(_TABLE, {"table": table.name})).one()
    names = {"schema": sql.SQL(schema), "table": sql.Identifier(name)}
    return names if is_ours else {**names, "owner": sql.SQL(owner)}


def _parsed(written: str, form: str) -> datetime:
    return datetime.strptime(written, form).replace(tzinfo=UTC)
