"""Where a worker's queue is, when its code does not say."""

import os
from pathlib import Path

from partywall_workers.errors import InvalidJob
from partywall_workers.keys import queue_name

KEEP = 86_400.0
"""Seconds that finished jobs are kept."""

KEEP_DEAD = 14 * 86_400.0
"""Seconds that dead ones are."""


def default_queue() -> str:
    """The queue of the installation that PARTYWALL_KEY_PREFIX names."""
    return queue_name(os.environ.get("PARTYWALL_KEY_PREFIX", "pw"))


def default_redis_url() -> str:
    """PARTYWALL_JOBS_REDIS_URL, PARTYWALL_REDIS_URL, or the embedded Valkey that runs here.

    Raises:
        InvalidJob: none of them.
    """
    url = os.environ.get("PARTYWALL_JOBS_REDIS_URL") or os.environ.get("PARTYWALL_REDIS_URL")
    if url:
        return url
    data_dir = Path(os.environ.get("PARTYWALL_DATA_DIR", ".partywall"))
    socket = data_dir.absolute() / "valkey" / "valkey.sock"
    if socket.exists():
        return f"unix://{socket}"
    raise InvalidJob(
        "redis_url",
        "expected the URL of the queue's Redis: set PARTYWALL_REDIS_URL, or start `partywall serve`"
        f" in this directory (there is no {socket})",
    )


def default_keep() -> float:
    """PARTYWALL_JOBS_KEEP, or a day.

    Raises:
        InvalidJob: it is no number above 0.
    """
    return _seconds("PARTYWALL_JOBS_KEEP", KEEP)


def default_keep_dead() -> float:
    """PARTYWALL_JOBS_KEEP_DEAD, or 14 days.

    Raises:
        InvalidJob: it is no number above 0.
    """
    return _seconds("PARTYWALL_JOBS_KEEP_DEAD", KEEP_DEAD)


def _seconds(name: str, otherwise: float) -> float:
    text = os.environ.get(name)
    if not text:
        return otherwise
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0
    if not 0 < seconds < float("inf"):
        raise InvalidJob(name, f"expected seconds above 0; got {text!r}")
    return seconds
