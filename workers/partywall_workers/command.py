"""What `partywall worker` and `python -m partywall_workers` have in common."""

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from partywall_workers.errors import InvalidJob
from partywall_workers.loading import CannotRun
from partywall_workers.settings import create_worker
from partywall_workers.worker import FairWorker

__all__ = ["OWN_REDIS", "run", "worker_of"]

OWN_REDIS = ("redis_url", "redis_pool", "redis_settings")
"""Settings by which a class names a Redis of its own."""

logger = logging.getLogger("partywall.worker")


def worker_of(settings: type, **options: Any) -> FairWorker:  # noqa: ANN401 - FairWorker's
    """A worker of a class of settings.

    Args:
        settings: the class.
        options: arguments of `FairWorker`, which win.

    Raises:
        CannotRun: a setting cannot be.
    """
    try:
        return create_worker(settings, **options)
    except (InvalidJob, ValueError, TypeError, RuntimeError, AssertionError) as exc:
        # What arq and redis-py say, too, to a setting that cannot be.
        name = f"{settings.__module__}.{settings.__qualname__}"
        raise CannotRun(f"{name}: {' '.join(str(exc).split())}") from exc


def run(create: Callable[[], FairWorker]) -> None:
    """Runs a worker until SIGTERM or SIGINT; the jobs that run may then end.

    Args:
        create: makes it, on the event loop on which it runs.

    Raises:
        CannotRun: it cannot be made, or ended by itself; then its log says where.
    """
    loop = asyncio.new_event_loop()
    asyncio.set_event_loop(loop)
    try:
        worker = create()
        try:
            worker.run()
        except Exception as exc:
            logger.exception("the worker ended")
            said = " ".join(f"{type(exc).__name__}: {exc}".split())
            raise CannotRun(f"the worker ended ({said}); the log above says where") from exc
    finally:
        asyncio.set_event_loop(None)
        loop.close()
