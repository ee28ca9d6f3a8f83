"""A request on what is one tenant's, to the fake sidecar; idempotency keys (docs/contract.md)."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import httpx
import msgspec

from partywall._fake.core import Core
from partywall._fake.policy import Tier
from partywall._fake.refused import Refused
from partywall._fake.windows import MICROSECONDS
from partywall.calls import KEY_HEADER

KEPT = timedelta(hours=24)
"""For how long a key is answered as the first time: no longer than docs/contract.md promises."""


class _Kept(NamedTuple):
    """What a key was answered."""

    until: datetime
    said: bytes
    answer: object


class Asked(NamedTuple):
    """What is asked, and of whom."""

    core: Core
    tenant: str
    request: httpx.Request
    body: bytes

    @property
    def method(self) -> str:
        """Of HTTP."""
        return self.request.method

    @property
    def now(self) -> datetime:
        """By the fake sidecar's clock."""
        return datetime.fromtimestamp(self.core.now / MICROSECONDS, UTC)

    @property
    def tier(self) -> Tier:
        """The tenant's.

        Raises:
            Refused: it has none.
        """
        tier = self.core.tier_of(self.tenant)
        if tier is None:
            raise Refused("unknown-tenant", f"tenant {self.tenant!r} is not registered")
        return tier

    def once(self, body: object, change: Callable[[str | None], Any]) -> Any:  # noqa: ANN401 - whatever it answers
        """Makes a change, or answers as the first time that its key was there.

        Args:
            body: what the request said.
            change: makes it, given the key.

        Raises:
            Refused: the change was, or the key stands for another body.
        """
        key = self.request.headers.get(KEY_HEADER)
        if key is None:
            return change(None)
        said = msgspec.json.encode(body, order="sorted")
        name = (self.method, self.request.url.path, key)
        kept: _Kept | None = self.core.answers.get(name)
        if kept is None or kept.until <= self.now:
            try:
                answer = change(key)
            except Refused as refused:
                answer = refused
            kept = self.core.answers[name] = _Kept(self.now + KEPT, said, answer)
        elif kept.said != said:
            raise Refused("conflict", "the idempotency key was used for another request before")
        if isinstance(kept.answer, Refused):
            raise Refused(kept.answer.slug, kept.answer.detail, kept.answer.field)
        return kept.answer
