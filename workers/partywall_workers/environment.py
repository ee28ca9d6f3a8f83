"""Where a worker's queue is, when its code does not say."""

import os
from pathlib import Path

from partywall_workers.errors import InvalidJob
from partywall_workers.keys import queue_name


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
