"""A set of public keys that is fetched from a URL and replaced there now and then (RFC 7517)."""

import asyncio
import logging
import math
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import httpx
import msgspec

from partywall.errors import ConfigurationError, KeysUnavailable

MAX_AGE = 3600.0
"""Seconds after which keys are fetched anew, in the background while they go on being used."""

AGAIN_AFTER = 10.0
"""Seconds between fetches at least, however many tokens name keys that are not in the set."""

RETRY_AFTER = 1.0
"""The same while there are no keys at all."""

DEADLINE = 2.0
"""Seconds that one fetch may take."""

log = logging.getLogger("partywall")

_Key = TypeVar("_Key")


class _Document(msgspec.Struct):
    keys: list[dict[str, Any]]


class KeySet(Generic[_Key]):
    """The keys at a URL, as last fetched.

    Args:
        url: where they are, `https://…`.
        read: makes keys of their JSON form, leaving out those that cannot be used.
        on_change: called when the set has become another one.
        transport: in place of httpx's own.
        timer: seconds that never go back.

    Attributes:
        keys: the usable ones; empty until the first fetch has succeeded.

    Raises:
        ConfigurationError: `url` is none.
    """

    def __init__(
        self,
        url: str,
        read: Callable[[Sequence[dict[str, Any]]], tuple[_Key, ...]],
        *,
        on_change: Callable[[], None],
        transport: httpx.AsyncBaseTransport | None,
        timer: Callable[[], float],
    ) -> None:
        self.keys: tuple[_Key, ...] = ()
        self._url = _checked(url)
        self._read = read
        self._on_change = on_change
        self._transport = transport
        # Made once: it reads every root certificate, which blocks for tens of milliseconds.
        self._tls: ssl.SSLContext | bool = (
            httpx.create_ssl_context()
            if transport is None and self._url.scheme == "https"
            else True
        )
        self._timer = timer
        self._document: list[dict[str, Any]] = []
        self._fetched_at = -math.inf
        self._tried_at = -math.inf
        self._fetching: asyncio.Task[None] | None = None
        self._failure = "not fetched yet"

    def ready(self) -> bool:
        """Whether the keys at hand are to be used now; starts to fetch them anew when they are old.

        After a long time in which nobody asked, old keys are not used before a fetch was tried: a
        key may have been withdrawn meanwhile.
        """
        now = self._timer()
        if now - self._fetched_at < MAX_AGE:
            return True
        if not self.keys or now - self._tried_at > 2 * MAX_AGE:
            return False
        if self.may_learn():
            self._started()
        return True

    def may_learn(self) -> bool:
        """Whether `refresh` would bring news: a fetch is under way, or it is time for one."""
        if self._under_way() is not None:
            return True
        return self._timer() - self._tried_at >= (AGAIN_AFTER if self.keys else RETRY_AFTER)

    async def refresh(self) -> None:
        """Fetches the keys, together with whoever else waits for them; not too soon again.

        Raises:
            KeysUnavailable: there are none at hand, and none could be fetched.
        """
        if self.may_learn():
            # Shielded: whoever asked first may hang up.
            await asyncio.shield(self._started())
        if not self.keys:
            raise KeysUnavailable(f"no keys from {self._url}: {self._failure}")

    def _under_way(self) -> "asyncio.Task[None] | None":
        """The fetch of this event loop; one that an abandoned loop left will never end."""
        task = self._fetching
        if task is None or task.done() or task.get_loop() is not asyncio.get_running_loop():
            return None
        return task

    def _started(self) -> "asyncio.Task[None]":
        task = self._under_way()
        if task is None:
            self._tried_at = self._timer()
            task = self._fetching = asyncio.create_task(self._fetch())
        return task

    async def _fetch(self) -> None:
        began = self._timer()
        try:
            document = await self._document_there()
            keys = self._read(document)
        except (httpx.HTTPError, TimeoutError, msgspec.MsgspecError, ValueError) as exc:
            self._failed(str(exc) or type(exc).__name__)
            return
        if not keys:
            self._failed("it has no key that could check a token")
            return
        self._fetched_at = began
        if document != self._document:
            self.keys, self._document = keys, document
            self._on_change()

    async def _document_there(self) -> list[dict[str, Any]]:
        async with (
            asyncio.timeout(DEADLINE),
            httpx.AsyncClient(
                transport=self._transport, verify=self._tls, timeout=DEADLINE
            ) as client,
        ):
            answer = await client.get(self._url, headers={"Accept": "application/json"})
            answer.raise_for_status()
            return msgspec.json.decode(answer.content, type=_Document).keys

    def _failed(self, why: str) -> None:
        self._failure = why
        log.warning(
            "The keys at %s could not be fetched (%s); %s.",
            self._url,
            why,
            "those at hand go on being used" if self.keys else "no token can be checked",
        )


def _checked(url: str) -> httpx.URL:
    try:
        parsed = httpx.URL(url)
    except (httpx.InvalidURL, TypeError) as exc:
        raise ConfigurationError(f"jwks_url: expected an https:// URL; got {url!r}") from exc
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigurationError(f"jwks_url: expected an https:// URL; got {url!r}")
    return parsed
