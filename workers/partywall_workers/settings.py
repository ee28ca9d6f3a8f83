"""A worker's settings as a class, as arq has them."""

import inspect
import logging
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, ClassVar

from arq.worker import Worker

from partywall import Partywall
from partywall_workers.keys import queue_name
from partywall_workers.policy import DEFAULT_LANE
from partywall_workers.worker import FairWorker

logger = logging.getLogger("partywall.worker")

_OURS = frozenset({"queues", "sidecar_url", "token", "key_prefix"})
_REDIS = frozenset({"redis_url", "redis_settings", "redis_pool"})

_CLOSE = 0.8
"""How alike a name must be to one of a setting's to be called misspelt; 1 is the same."""


class FairWorkerSettings:
    """What a worker runs and how: derive from it, and name what differs.

    Every name that `arq.Worker` takes is one of a setting here (`functions`, `cron_jobs`,
    `on_startup`, `max_jobs`, `job_timeout`, `max_tries`, …), and so is every other argument of
    `FairWorker`. Attributes of base classes count.

    Attributes:
        functions: the jobs.
        queues: lanes that it serves, the first first: `default`, or what tiers name by
            `jobs.queue`.
        redis_url: the queue's Redis; None: PARTYWALL_REDIS_URL.
        key_prefix: of the sidecar's installation; None: PARTYWALL_KEY_PREFIX, or `pw`.
        sidecar_url: where quotas of jobs are consumed; None: PARTYWALL_SIDECAR_URL.
        token: for that, of scope `host`; None: PARTYWALL_TOKEN.
    """

    functions: ClassVar[Sequence[Any]] = ()
    queues: ClassVar[Sequence[str]] = (DEFAULT_LANE,)
    redis_url: ClassVar[str | None] = None
    key_prefix: ClassVar[str | None] = None
    sidecar_url: ClassVar[str | None] = None
    token: ClassVar[str | None] = None


def create_worker(settings: type, **kwargs: Any) -> FairWorker:  # noqa: ANN401 - FairWorker's
    """A worker of these settings.

    Args:
        settings: a class of settings, ours or one of arq's.
        kwargs: arguments of `FairWorker`, which win.

    Raises:
        InvalidJob: a setting cannot be.
        RuntimeError: there is no function.
    """
    known = _known()
    given = {name: getattr(settings, name) for name in known if hasattr(settings, name)}
    _tell_unknown(settings, known)
    given.setdefault("lanes", getattr(settings, "queues", (DEFAULT_LANE,)))
    prefix = getattr(settings, "key_prefix", None)
    if prefix is not None:
        given.setdefault("queue_name", queue_name(prefix))
    if not _REDIS.isdisjoint(kwargs):  # they say it in one way, the class perhaps in another
        given = {name: value for name, value in given.items() if name not in _REDIS}
    given |= kwargs
    url, token = getattr(settings, "sidecar_url", None), getattr(settings, "token", None)
    own = given.get("sidecar") is None and (url is not None or token is not None)
    if own:
        given["sidecar"] = Partywall(url, token=token)
    worker = FairWorker(**given)
    worker.owns_sidecar = worker.owns_sidecar or own
    return worker


def _known() -> set[str]:
    """What settings may be named, apart from those of ours that are no arguments."""
    return {
        name
        for kind in (Worker, FairWorker)
        for name in inspect.signature(kind).parameters
        if name != "kwargs"
    }


def _tell_unknown(settings: type, known: set[str]) -> None:
    """Warns of names that are most likely misspelt; classes may have others of their own."""
    for name in dir(settings):
        if name.startswith("_") or name in known | _OURS:
            continue
        meant = get_close_matches(name, sorted(known | _OURS), 1, _CLOSE)
        if meant:
            logger.warning(
                "%s.%s is no setting of a worker's: is %s meant?", settings.__name__, name, meant[0]
            )


def run_worker(settings: type, **kwargs: Any) -> FairWorker:  # noqa: ANN401 - FairWorker's
    """Runs a worker of these settings until it is told to stop; as `create_worker`."""
    worker = create_worker(settings, **kwargs)
    worker.run()
    return worker
