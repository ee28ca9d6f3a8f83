"""Who is calling: tokens, looked up once and then known without leaving the process."""

import asyncio
import hashlib
import hmac
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

from partywall_service.api.problems import Problem
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.ledger.records import TokenRecord
from partywall_service.ledger.store import Ledger
from partywall_service.ledger.token_text import TokenText

Scope = Literal["admin", "host", "tenant"]

REMEMBERED = 10_000
"""Tokens a process remembers, and as many ids that are none."""

UNKNOWN_FOR = 5.0
"""Seconds an id without a token is remembered as such; its creation ends that at once."""

LOOKUP_DEADLINE = 1.0
"""Seconds a lookup may take before PostgreSQL counts as away."""

COOL_DOWN = 0.5
"""Seconds after a failed lookup in which no other is tried."""

_LOOKUP_SIZE = 500


@dataclass(frozen=True, slots=True)
class Principal:
    """Whoever presented a valid token.

    Attributes:
        scope: what it may do; `tenant` is the one tenant a `tenant` scope speaks for.
        tenant: that tenant's id, else None.
        actor: what the audit log calls it: `admin`, or the token's name and id.
    """

    scope: Scope
    tenant: str | None
    actor: str


@dataclass(slots=True)
class _Known:
    """A token that exists: whom it stands for, and how its secret is recognised.

    Attributes:
        principal: whom it stands for.
        digest: SHA-256 of its secret.
        presented: SHA-256 of the whole token, once it was presented with the right secret.
        fresh: False once its revocation may have gone unheard; then PostgreSQL is asked again,
            and this is believed only while PostgreSQL is away.
    """

    principal: Principal
    digest: bytes
    presented: bytes | None = None
    fresh: bool = True


_Answer = asyncio.Future[_Known | LedgerUnavailable | None]


class Authenticator:
    """Turns what a caller presents into a principal.

    A token seen before costs a hash and a dictionary's answer, so known callers are served while
    PostgreSQL is away. Tokens not seen before are asked for together, one query at a time, and
    unknown ids are remembered for a while: a flood of invented tokens reaches PostgreSQL as one
    query in flight, and one that varies the secret of a real token does not reach it at all.

    Args:
        ledger: where tokens are.
        admin_token: the configured token, with every scope.
        clock: seconds, monotonic.
    """

    def __init__(
        self, ledger: Ledger, admin_token: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._admin_digest = _digest(admin_token)
        self._admin = Principal("admin", None, "admin")
        self._principals: dict[bytes, Principal] = {}  # by SHA-256 of the whole token
        self._known: dict[str, _Known] = {}  # by id, oldest first, as the next
        self._unknown: dict[str, float] = {}  # until when
        self._wanted: dict[str, _Answer] = {}  # in the next query
        self._asked: dict[str, _Answer] = {}  # in the query under way, unless forgotten since
        self._lookup: asyncio.Task[None] | None = None
        self._not_before = 0.0

    def known(self, presented: str) -> Principal | None:
        """The principal of a token already verified; None says only that it is not known yet.

        Synchronous, for the hot path. Comparing digests in a dictionary tells a caller's clock
        nothing: nobody can choose a token so that its SHA-256 shares a prefix with another's.
        """
        digest = _digest(presented)
        if hmac.compare_digest(digest, self._admin_digest):
            return self._admin
        return self._principals.get(digest)

    async def authenticate(self, presented: str | None) -> Principal:
        """The principal of a token.

        Raises:
            Problem: `unauthenticated`, or `unavailable` when only PostgreSQL could tell and it
                does not answer.
        """
        if presented is None:
            raise Problem(
                "unauthenticated",
                "Expected a token, as `Authorization: Bearer TOKEN` or `X-Partywall-Token: TOKEN`.",
            )
        principal = self.known(presented)
        if principal is not None:
            return principal
        text = TokenText.parse(presented)
        found = None if text is None else await self._find(text.id)
        if text is None or found is None or not hmac.compare_digest(found.digest, text.digest):
            raise Problem("unauthenticated", "The token is not one of this installation's.")
        if found.fresh and self._known.get(text.id) is found:
            found.presented = _digest(presented)
            self._principals[found.presented] = found.principal
        return found.principal

    def forget(self, token_id: str) -> None:
        """Drops what is remembered of a token: it was created or revoked somewhere."""
        self._asked.pop(token_id, None)  # its answer may be from before the change
        self._unknown.pop(token_id, None)
        self._drop(token_id)

    def clear(self) -> None:
        """Changes may have gone unheard: every token is asked for again at its next use."""
        self._asked.clear()
        self._unknown.clear()
        self._principals.clear()
        for known in self._known.values():
            known.fresh = False

    async def _find(self, token_id: str) -> _Known | None:
        known = self._known.get(token_id)
        if known is not None and known.fresh:
            return known
        if self._unknown.get(token_id, 0.0) > self._clock():
            return None
        future = self._asked.get(token_id) or self._wanted.get(token_id)
        if future is None:
            future = self._wanted[token_id] = asyncio.get_running_loop().create_future()
            if self._lookup is None:
                self._lookup = asyncio.create_task(self._look_up())
        # Shielded: others may wait for the same answer when this caller hangs up.
        answer = await asyncio.shield(future)
        if not isinstance(answer, LedgerUnavailable):
            return answer
        stale = self._known.get(token_id)
        if stale is None:
            raise Problem("unavailable", "The token cannot be checked now.") from answer
        return stale

    async def _look_up(self) -> None:
        """Answers what is wanted, query after query, until nothing is."""
        batch: dict[str, _Answer] = {}
        try:
            while self._wanted:
                batch = {key: self._wanted.pop(key) for key in list(self._wanted)[:_LOOKUP_SIZE]}
                self._asked.update(batch)
                answers = await self._ask(list(batch))
                for token_id, future in batch.items():
                    answer = answers if isinstance(answers, Exception) else answers.get(token_id)
                    if self._asked.pop(token_id, None) is future:
                        self._remember(token_id, answer)
                    future.set_result(answer)
        except BaseException:
            for future in (*batch.values(), *self._wanted.values()):  # nobody may wait for ever
                if not future.done():
                    future.set_result(LedgerUnavailable("the lookup was interrupted"))
            self._asked.clear()
            self._wanted.clear()
            raise
        finally:
            self._lookup = None

    async def _ask(self, ids: list[str]) -> dict[str, _Known] | LedgerUnavailable:
        """Asks PostgreSQL, unless it failed a moment ago: an outage must not cost each caller."""
        if self._clock() < self._not_before:
            return LedgerUnavailable("PostgreSQL did not answer a moment ago")
        try:
            async with asyncio.timeout(LOOKUP_DEADLINE):
                found = await self._ledger.find_tokens(ids)
        except (LedgerUnavailable, TimeoutError) as error:
            self._not_before = self._clock() + COOL_DOWN
            return error if isinstance(error, LedgerUnavailable) else LedgerUnavailable("too late")
        return {
            token_id: _Known(_principal(record), digest)
            for token_id, (record, digest) in found.items()
        }

    def _remember(self, token_id: str, answer: _Known | LedgerUnavailable | None) -> None:
        if isinstance(answer, LedgerUnavailable):
            return
        self._drop(token_id)  # and so to the end: the oldest is first
        self._unknown.pop(token_id, None)
        if answer is not None:
            if len(self._known) >= REMEMBERED:
                self._drop(next(iter(self._known)))
            self._known[token_id] = answer
        else:
            if len(self._unknown) >= REMEMBERED:
                del self._unknown[next(iter(self._unknown))]
            self._unknown[token_id] = self._clock() + UNKNOWN_FOR

    def _drop(self, token_id: str) -> None:
        gone = self._known.pop(token_id, None)
        if gone is not None and gone.presented is not None:
            self._principals.pop(gone.presented, None)


def presented_token(headers: Iterable[tuple[bytes, bytes]]) -> str | None:
    """The token in raw ASGI headers, or None.

    `X-Partywall-Token` wins: a gateway that names itself there may pass its own client's
    `Authorization` on.
    """
    bearer: bytes | None = None
    for name, value in headers:
        if name == b"x-partywall-token":
            if token := value.strip():
                return _text(token)
        elif name == b"authorization" and bearer is None:
            scheme, _, rest = value.strip().partition(b" ")
            if scheme.lower() == b"bearer" and rest.strip():
                bearer = rest.strip()
    return None if bearer is None else _text(bearer)


def _text(token: bytes) -> str:
    # As Python reads environment variables, so a token configured there is met whatever its bytes.
    return token.decode("utf-8", "surrogateescape")


def _digest(presented: str) -> bytes:
    return hashlib.sha256(presented.encode("utf-8", "surrogatepass")).digest()


def _principal(record: TokenRecord) -> Principal:
    actor = f"{record.name} ({record.id})"
    match record.scope.split(":", 1):
        case ["admin" | "host" as scope]:
            return Principal(scope, None, actor)
        case ["tenant", tenant]:
            return Principal("tenant", tenant, actor)
    raise ValueError(f"expected the scope admin, host or tenant:<id>, got {record.scope!r}")
