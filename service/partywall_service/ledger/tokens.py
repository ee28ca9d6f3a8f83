"""Tokens: who may call. Only a digest of each secret is kept."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy import Row, delete, insert, select

from partywall_service.ledger.base import Store, any_of
from partywall_service.ledger.changes import Change
from partywall_service.ledger.records import TokenRecord
from partywall_service.ledger.tables import tokens
from partywall_service.ledger.token_text import TokenText

_COLUMNS = (tokens.c.id, tokens.c.scope, tokens.c.tenant, tokens.c.name, tokens.c.created_at)


class Tokens(Store):
    """The statements on tokens."""

    async def create_token(self, scope: str, name: str, *, actor: str) -> tuple[TokenRecord, str]:
        """Makes a token of scope `admin`, `host` or `tenant:<id>`.

        The tenant need not be registered, as `default_tier` may serve it all the same.

        Returns:
            The record, and the token itself, which cannot be had again.

        Raises:
            LedgerUnavailable: PostgreSQL cannot answer now.
            ValueError: there is no such scope, or some text cannot be stored.
        """
        kind, colon, tenant = scope.partition(":")
        if not ((kind in ("admin", "host") and not colon) or (kind == "tenant" and tenant)):
            raise ValueError(f"expected the scope admin, host or tenant:<id>, got {scope!r}")
        text = TokenText.mint()
        async with self._changing() as connection:
            row = (
                await connection.execute(
                    insert(tokens)
                    .values(
                        id=text.id,
                        scope=kind,
                        tenant=tenant or None,
                        name=name,
                        digest=text.digest,
                    )
                    .returning(*_COLUMNS)
                )
            ).one()
            await self._record(
                connection,
                Change("token", text.id),
                actor=actor,
                action="token.created",
                tenant=tenant or None,
                detail={"id": text.id, "scope": scope, "name": name},
            )
            return _record(row), str(text)

    async def list_tokens(self, *, after: str | None = None, limit: int) -> list[TokenRecord]:
        """Tokens by id, from the one after `after`, at most `limit`."""
        query = select(*_COLUMNS).order_by(tokens.c.id).limit(limit)
        if after is not None:
            query = query.where(tokens.c.id > after)
        async with self._reading() as connection:
            return [_record(row) for row in await connection.execute(query)]

    async def revoke_token(self, token_id: str, *, actor: str) -> bool:
        """Ends a token; False, and nothing recorded, when there was none."""
        async with self._changing() as connection:
            row = (
                await connection.execute(
                    delete(tokens).where(tokens.c.id == token_id).returning(*_COLUMNS)
                )
            ).one_or_none()
            if row is None:
                return False
            ended = _record(row)
            await self._record(
                connection,
                Change("token", token_id),
                actor=actor,
                action="token.revoked",
                tenant=row.tenant,
                detail={"id": ended.id, "scope": ended.scope, "name": ended.name},
            )
            return True

    async def find_tokens(self, ids: Sequence[str]) -> dict[str, tuple[TokenRecord, bytes]]:
        """The tokens there are of these ids, each with the SHA-256 of its secret; one query."""
        query = select(*_COLUMNS, tokens.c.digest).where(any_of(tokens.c.id))
        async with self._reading() as connection:
            rows = await connection.execute(query, {"ids": list(ids)})
            return {row.id: (_record(row), bytes(row.digest)) for row in rows}


def _record(row: Row[*tuple[Any, ...]]) -> TokenRecord:
    scope = row.scope if row.tenant is None else f"{row.scope}:{row.tenant}"
    return TokenRecord(id=row.id, scope=scope, name=row.name, created_at=row.created_at)
