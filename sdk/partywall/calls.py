"""What every group of a client's methods needs of the client; and keys that make a change one."""

import re
import secrets
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import TypeVar

import msgspec

from partywall.records import invalid

KEY_HEADER = "Idempotency-Key"

_KEY = re.compile("[!-~]{1,255}")

T = TypeVar("T")


class Calls(ABC):
    """Requests that may be repeated, and pauses."""

    async def _ask(
        self,
        method: str,
        path: str,
        answer: msgspec.json.Decoder[T],
        *,
        query: Mapping[str, str] | None = None,
        body: object = None,
        key: str | None = None,
    ) -> T:
        """A request whose repetition changes nothing, by its key or by itself."""
        headers = None if key is None else {KEY_HEADER: key}
        return await self._request(method, path, answer, query, body, headers)

    @abstractmethod
    async def _request(
        self,
        method: str,
        path: str,
        answer: msgspec.json.Decoder[T],
        query: Mapping[str, str] | None,
        body: object,
        headers: Mapping[str, str] | None,
    ) -> T:
        """`Transport.request`, of what may be repeated."""

    @abstractmethod
    async def _sleep(self, seconds: float) -> None:
        """Lets time pass."""


def key_of(given: str | None, *, at: str = "idempotency_key") -> str:
    """The key of one change: the caller's, or a random one.

    Raises:
        InvalidRequest: the caller's cannot be sent.
    """
    if given is None:
        # Of this one attempt: the sidecar need not keep its denial, nor its answer for long.
        return f"try:{secrets.token_hex(16)}"
    if not isinstance(given, str) or _KEY.fullmatch(given) is None:
        expected = "expected 1 to 255 visible ASCII characters, without spaces"
        raise invalid(at, expected, given)
    return given
