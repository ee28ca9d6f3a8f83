"""A tenant erased from PostgreSQL: every row that is its, but for one audit line that says so."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from sqlalchemy import TextClause, delete, text
from sqlalchemy.ext.asyncio import AsyncConnection

from partywall_service.ledger.base import Store
from partywall_service.ledger.changes import CHANNEL, Change
from partywall_service.ledger.tables import (
    quota_ledger,
    quota_levels,
    quota_operations,
    quota_reservations,
    tokens,
)

ERASED = "tenant.erased"
"""The action of the audit line that stays."""

AT_ONCE = 20_000
"""Rows that one statement removes: a tenth of a second's work."""

Further = Callable[[AsyncConnection, str], Awaitable[int]]
"""Removes more of a tenant in the same transaction; says how many rows there were."""

# What the triggers ask for: the ledger of quotas and the audit log are append only.
_ERASING = text("SELECT set_config('partywall.erasing', :tenant, true)")

# The lock under which quotas change (quotas/store.py), so that nothing under way outlives them.
_LOCK_QUOTAS = text("""
    SELECT pg_advisory_xact_lock(hashtextextended('partywall.quotas:' || :tenant, 0))
""")


def _many(table: str, at_once: int) -> str:
    return f"""
        (SELECT count(*) FROM (
            SELECT FROM {table} WHERE tenant = :tenant LIMIT {at_once} + 1
        ) AS first) > {at_once}
    """  # noqa: S608 - no caller's text is in it


def _some(table: str, at_once: int) -> TextClause:
    return text(f"""
        DELETE FROM {table} WHERE tenant = :tenant AND {_many(table, at_once)} AND id IN (
            SELECT id FROM {table} WHERE tenant = :tenant ORDER BY id LIMIT {at_once}
        )
    """)  # noqa: S608 - no caller's text is in it


def in_parts(*, at_once: int = AT_ONCE) -> Mapping[str, TextClause]:
    """Statements, each to be repeated until it removes nothing: then a tenant has few rows left.

    Of these a tenant may have millions, which is more than one statement has time for.
    """
    return {
        "ledger": _some("quota_ledger", at_once),
        "operations": _some("quota_operations", at_once),
        "reservations": _some("quota_reservations", at_once),
        "usage": text(f"""
            DELETE FROM usage_minutes
            WHERE tenant = :tenant AND {_many("usage_minutes", at_once)} AND start < (
                SELECT min(start) FROM usage_minutes WHERE tenant = :tenant
            ) + interval '12 hours'
        """),  # noqa: S608 - no caller's text is in it
    }


_IN_PARTS = in_parts()
_LOCK_TENANT = text("""
    SELECT tier, (SELECT count(*) FROM tenant_domains WHERE tenant = :tenant) AS domains,
        (SELECT count(*) FROM overrides WHERE tenant = :tenant) AS overrides
    FROM tenants WHERE tenant = :tenant FOR UPDATE
""")
_DELETE_TENANT = text("DELETE FROM tenants WHERE tenant = :tenant")
_IS_REGISTERED = text("SELECT EXISTS (SELECT FROM tenants WHERE tenant = :tenant)")
_DELETE_LINES = text("DELETE FROM audit WHERE tenant = :tenant AND action <> :but")
_ERASED_LATELY = text("""
    SELECT EXISTS (
        SELECT FROM audit WHERE tenant = :tenant AND action = :action
            AND at > clock_timestamp() - interval '1 day'
    )
""")
_TELL = text("SELECT pg_notify(:channel, unnest(CAST(:payloads AS text[])))")


async def _nothing(_connection: AsyncConnection, _tenant: str) -> int:
    return 0


class Erasures(Store):
    """The statements that erase."""

    async def erase_tenant(
        self,
        tenant: str,
        *,
        actor: str,
        further: Further = _nothing,
        elsewhere: Mapping[str, int] | None = None,
    ) -> bool:
        """Removes everything of a tenant, registered or not; one audit line tells what there was.

        Whoever comes under its id later starts from zero. Where it raises, some of the tenant's
        past may be gone; a repetition removes the rest, and leaves a line as it is that was written
        within the day.

        Args:
            tenant: whose.
            actor: for the audit line.
            further: removes what is not of the ledger.
            elsewhere: how much was removed outside of PostgreSQL, for the audit line.

        Returns:
            Whether there was anything; if not, nothing is written.
        """
        in_parts = await self._erase_in_parts(tenant)
        async with self._changing() as connection:
            found, revoked = await _erase_rows(connection, tenant, further)
            registered = await connection.execute(_LOCK_TENANT, {"tenant": tenant})
            row = registered.mappings().one_or_none()
            known = {} if row is None else dict(row)
            tier = known.pop("tier", None)
            await connection.execute(_DELETE_TENANT, {"tenant": tenant})
            counts = {**known, **_sum(found, in_parts), **(elsewhere or {})}
            if row is None:
                if not any(counts.values()):
                    return False
                if await connection.scalar(_ERASED_LATELY, {"tenant": tenant, "action": ERASED}):
                    await _tell_of_tokens(connection, revoked)
                    return True
            # The line of an earlier life, too: there is one, of the last.
            await connection.execute(_DELETE_LINES, {"tenant": tenant, "but": ""})
            await self._record(
                connection,
                Change("tenant", tenant),
                *(Change("token", token) for token in revoked),
                actor=actor,
                action=ERASED,
                tenant=tenant,
                detail={"tier": tier, "erased": {what: n for what, n in counts.items() if n}},
            )
            return True

    async def erase_rest(self, tenant: str, *, further: Further = _nothing) -> bool:
        """Removes what was written after `erase_tenant` by whoever had not heard of it.

        Returns:
            False when the tenant is registered anew; then nothing is removed.
        """
        async with self._changing() as connection:
            if await connection.scalar(_IS_REGISTERED, {"tenant": tenant}):
                return False
            _, revoked = await _erase_rows(connection, tenant, further)
            await _tell_of_tokens(connection, revoked)
            return True

    async def _erase_in_parts(self, tenant: str) -> dict[str, int]:
        removed: dict[str, int] = {}
        for what, statement in _IN_PARTS.items():
            some = -1
            while some:
                async with self._changing() as connection:
                    await connection.execute(_ERASING, {"tenant": tenant})
                    some = (await connection.execute(statement, {"tenant": tenant})).rowcount
                removed[what] = removed.get(what, 0) + some
        return removed


async def _erase_rows(
    connection: AsyncConnection, tenant: str, further: Further
) -> tuple[dict[str, int], list[str]]:
    """Removes all rows but the tenant's own, and the line that it was erased.

    Returns:
        How many there were, by what they were; and the ids of its tokens.
    """
    given = {"tenant": tenant}
    await connection.execute(_LOCK_QUOTAS, given)
    await connection.execute(_ERASING, given)
    counts: dict[str, int] = {}
    for what, table in (
        ("quotas", quota_levels),
        ("reservations", quota_reservations),
        ("operations", quota_operations),
        ("ledger", quota_ledger),
    ):
        gone: Any = await connection.execute(delete(table).where(table.c.tenant == tenant))
        counts[what] = gone.rowcount
    revoked = sorted(
        await connection.scalars(
            delete(tokens).where(tokens.c.tenant == tenant).returning(tokens.c.id)
        )
    )
    counts["tokens"] = len(revoked)
    counts["usage"] = await further(connection, tenant)
    lines = await connection.execute(_DELETE_LINES, {**given, "but": ERASED})
    counts["audit"] = lines.rowcount
    return counts, revoked


async def _tell_of_tokens(connection: AsyncConnection, revoked: Sequence[str]) -> None:
    payloads = [Change("token", token).payload for token in revoked]
    if payloads:
        await connection.execute(_TELL, {"channel": CHANNEL, "payloads": payloads})


def _sum(one: Mapping[str, int], other: Mapping[str, int]) -> dict[str, int]:
    return {what: one.get(what, 0) + other.get(what, 0) for what in {**one, **other}}
