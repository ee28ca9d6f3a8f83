"""A typed façade over each Lua script: its signature is the script's calling contract."""

from collections.abc import Callable, Sequence
from hashlib import sha1
from importlib.resources import files
from typing import Any, Literal

from redis.asyncio import Redis, RedisCluster
from redis.client import NEVER_DECODE
from redis.exceptions import NoScriptError

from partywall.cache.keys import TenantKeys

_AS_BYTES: Any = {NEVER_DECODE: True}
"""Answers are bytes, also from a client made with `decode_responses=True`."""


class Script:
    """Lua files one after another, called by their digest, sent whole where that is not known."""

    def __init__(self, *parts: str) -> None:
        folder = files(__package__).joinpath("lua")
        self.text = "\n".join(folder.joinpath(f"{part}.lua").read_text() for part in parts)
        self.sha = sha1(self.text.encode(), usedforsecurity=False).hexdigest()


_set, _delete, _clear = (Script("clock", "index", name) for name in ("set", "delete", "clear"))
_exists, _count = Script("clock", "exists"), Script("clock", "count")
_get = Script("get")


class Commands:
    """The scripts, on one client; errors of redis-py pass through.

    Args:
        client: the host's.
        clock: microseconds since the epoch in place of the server's clock, for tests.
    """

    def __init__(self, client: Redis | RedisCluster, clock: Callable[[], int] | None) -> None:
        self._execute = client.execute_command
        self._clock = clock

    async def set(
        self,
        keys: TenantKeys,
        name: bytes,
        value: bytes,
        *,
        ttl: int | None,
        limit: int | None,
        evicts: bool,
    ) -> Literal[1, 0, -1]:
        """Sets a value with a TTL in milliseconds: 1 done, 0 refused, -1 to be called again."""
        answer: Literal[1, 0, -1] = await self._call(
            _set,
            (keys.expiry, keys.used, name),
            self._now(),
            value,
            # One argument, because redis-py takes longer to pack three than Lua to part them.
            f"{-1 if ttl is None else ttl} {-1 if limit is None else limit} {evicts:d}",
        )
        return answer

    async def get(
        self, keys: TenantKeys, values: Sequence[bytes], *, touch: bool
    ) -> list[bytes | None]:
        """Values, None where there is none; `touch` says that they were used now."""
        found: list[bytes | None]
        if touch:
            now = () if self._clock is None else (self._clock(),)
            found = await self._call(_get, (keys.used, *values), *now)
        elif len(values) == 1:
            found = [await self._execute("GET", values[0], **_AS_BYTES)]
        else:
            found = await self._execute("MGET", *values, **_AS_BYTES)
        if self._clock is not None:  # the server does not know what expired in virtual time
            there = [await self.exists(keys, name) for name in values]
            found = [raw if lives else None for raw, lives in zip(found, there, strict=True)]
        return found

    async def exists(self, keys: TenantKeys, name: bytes) -> bool:
        """Whether a key lives; it counts as no use of it."""
        there: int = await self._call(_exists, (keys.expiry, keys.used, name), self._now())
        return there == 1

    async def delete(self, keys: TenantKeys, name: bytes) -> bool:
        """Deletes a key, and says whether it lived."""
        lived: int = await self._call(_delete, (keys.expiry, keys.used, name), self._now())
        return lived == 1

    async def count(self, keys: TenantKeys) -> int:
        """How many keys live."""
        live: int = await self._call(_count, (keys.expiry, keys.used), self._now())
        return live

    async def clear(self, keys: TenantKeys) -> tuple[int, int]:
        """Deletes some keys: how many of them lived, and how many entries are left."""
        lived, left = await self._call(_clear, (keys.expiry, keys.used), self._now())
        return lived, left

    def _now(self) -> int | str:
        return "" if self._clock is None else self._clock()

    async def _call(self, script: Script, names: Sequence[bytes], *args: bytes | str | int) -> Any:  # noqa: ANN401 - what a script returns is known to its façade alone
        rest = (len(names), *names, *args)
        try:
            return await self._execute("EVALSHA", script.sha, *rest, **_AS_BYTES)
        except NoScriptError:
            return await self._execute("EVAL", script.text, *rest, **_AS_BYTES)
