"""Applies a changed quotas.toml while the sidecar runs."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from pathlib import Path

import structlog
from watchfiles import awatch

from partywall_service.policy.loader import (
    PolicyError,
    parse_policy,
    policy_digest,
    read_policy_text,
)
from partywall_service.policy.model import Policy

POLL_SECONDS = 0.5
"""How often the file is looked at though nothing said that it changed: some file systems (network
mounts, some containers' volumes) tell nobody."""

DEBOUNCE_MS = 100
"""How long to gather events: an editor makes several to a save."""

SETTLE_SECONDS = 0.1
"""How long a new content must stay as it is. One that is written in place is halfway at some
moment, and half a policy may well be a valid one."""

log = structlog.get_logger()


async def watch_policy(
    path: Path,
    current: Policy,
    apply: Callable[[Policy], Awaitable[None]],
    reject: Callable[[PolicyError], None],
) -> None:
    """Runs until cancelled; a valid change is applied within two seconds.

    Args:
        path: the policy file.
        current: the policy in force at the start; what differs from it is applied at once.
        apply: called with every new policy, and with the one in force when the file goes back to
            it after a refusal. Should it fail, it is called again at the next look; a `PolicyError`
            of its own says that the policy cannot apply yet, and is told by `reject` once.
        reject: called, once for each content, with why the file cannot be used; what was in force
            stays.
    """
    watch = _Watch(path, current, apply, reject)
    async with aclosing(_looks(path)) as looks:
        async for _ in looks:
            await watch.look()


class _Watch:
    """Looks at the file, and acts on what is new in it."""

    def __init__(
        self,
        path: Path,
        current: Policy,
        apply: Callable[[Policy], Awaitable[None]],
        reject: Callable[[PolicyError], None],
    ) -> None:
        self._path = path
        self._apply = apply
        self._reject = reject
        self._done = current.digest  # of what was applied or refused last, or why it was unreadable
        self._waiting = ""  # of what cannot apply yet, once that was told

    async def look(self) -> None:
        """Apply or refuse what the file says, unless that was done already."""
        content = await asyncio.to_thread(self._read)
        if _identity(content) == self._done:
            return
        await asyncio.sleep(SETTLE_SECONDS)
        if _identity(await asyncio.to_thread(self._read)) != _identity(content):
            return  # it is being written: the next event or poll comes back to it
        try:
            await self._act_on(content)
        except PolicyError as exc:
            if self._waiting != _identity(content):
                self._waiting = _identity(content)
                self._done = ""  # so that going back to what is in force is told, too
                self._reject(exc)
        except Exception:
            # The next change must still be seen; this one is tried again at the next look.
            log.exception("policy.not_applied", path=str(self._path))
        else:
            self._done = _identity(content)
            self._waiting = ""

    def _read(self) -> str | PolicyError:
        try:
            return read_policy_text(self._path)
        except PolicyError as exc:
            return exc

    async def _act_on(self, content: str | PolicyError) -> None:
        try:
            if isinstance(content, PolicyError):
                raise content
            policy = await asyncio.to_thread(parse_policy, content, str(self._path))
        except PolicyError as exc:
            self._reject(exc)
        else:
            await self._apply(policy)


def _identity(content: str | PolicyError) -> str:
    return str(content) if isinstance(content, PolicyError) else policy_digest(content)


async def _looks(path: Path) -> AsyncGenerator[None, None]:
    """Yields whenever the file should be looked at: at once, at each event, and every poll.

    The directory is watched and not the file, because editors replace a file by renaming another
    over it; and everything in it, because the file may be reached over a link beside it, as
    Kubernetes' `..data` is.
    """
    yield  # what changed between the load and now
    told = False
    while True:
        try:
            changes = awatch(
                path.parent.absolute(),
                watch_filter=None,
                debounce=DEBOUNCE_MS,
                rust_timeout=round(POLL_SECONDS * 1000),
                yield_on_timeout=True,
                recursive=False,
            )
            async with aclosing(changes):
                async for _ in changes:
                    yield
        except (OSError, RuntimeError) as exc:
            # No directory for the moment, or (watchfiles' own RuntimeError) no inotify instance
            # left on this machine: the poll has to do.
            if not told:
                log.warning("policy.polled", path=str(path), error=str(exc))
                told = True
        await asyncio.sleep(POLL_SECONDS)
        yield
