"""Applies a changed quotas.toml while the sidecar runs."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import structlog
from watchfiles import awatch

from partywall_service.policy.loader import PolicyError, load_policy
from partywall_service.policy.model import Policy

POLL_SECONDS = 1.0
"""How often the file is looked at though nothing said that it changed: some file systems (network
mounts, some containers' volumes) tell nobody."""

DEBOUNCE_MS = 100
"""How long to gather events: an editor makes several to a save."""

log = structlog.get_logger()


async def watch_policy(
    path: Path,
    current: Policy,
    apply: Callable[[Policy], Awaitable[None]],
    reject: Callable[[PolicyError], None],
) -> None:
    """Runs until cancelled; a valid change is applied within two seconds.

    The directory is watched and not the file, because editors replace a file by renaming another
    over it, and Kubernetes swaps a link beside it.

    Args:
        path: the policy file.
        current: the policy in force at the start; what differs from it is applied at once.
        apply: called with every new policy.
        reject: called, once for each content, with why the file cannot be used; what was in force
            stays.
    """
    seen = current.digest
    said = ""
    async for _ in awatch(
        path.parent.absolute(),
        watch_filter=lambda _change, changed: _concerns(path, Path(changed)),
        debounce=DEBOUNCE_MS,
        rust_timeout=round(POLL_SECONDS * 1000),
        yield_on_timeout=True,
        recursive=False,
    ):
        try:
            policy = await asyncio.to_thread(load_policy, path)
        except PolicyError as exc:
            if str(exc) != said:
                said = str(exc)
                seen = ""  # so that going back to what is in force is told, too
                reject(exc)
            continue
        said = ""
        if policy.digest != seen:
            try:
                await apply(policy)
            except Exception:
                # The next change must still be seen; this one is tried again at the next look.
                log.exception("policy.not_applied", path=str(path))
            else:
                seen = policy.digest


def _concerns(path: Path, changed: Path) -> bool:
    """Whether a change beside the policy file may be one of it: itself, or Kubernetes' `..data`."""
    return changed.name == path.name or changed.name.startswith("..")
