"""The scenes: a quiet tenant alone, then beside a noisy one, without Partywall and with it."""

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from statistics import quantiles

from partywall_service.demo.street import NOISY, QUIET, Street
from partywall_service.demo.traffic import Jobs, Seen, send_requests

QUIET_RATE = 5.0
"""Requests a second, and as many jobs. The app and a worker can do fifty times as much."""

TIMES = 100
"""How much noisier the noisy tenant is."""

LOOK_SECONDS = 0.5

WARM_UP_SECONDS = 1.0
"""Of the quiet tenant's requests before each scene: the first of a process are of no interest."""

GRACE_SECONDS = 2.0
"""For how long after a scene the quiet tenant's last jobs may start."""


@dataclass
class Scene:
    """One scene and what became of it.

    Attributes:
        title: what a person reads.
        protected: whether Partywall stands between the tenants.
        noise: whether the noisy tenant is there.
        quiet, noisy: what they saw.
        over: whether it has been played.
        ended_at: when nobody waited for its jobs any more, in seconds since the epoch.
    """

    title: str
    protected: bool
    noise: bool
    quiet: Seen = field(default_factory=Seen)
    noisy: Seen = field(default_factory=Seen)
    over: bool = False
    ended_at: float = 0.0


def scenes() -> list[Scene]:
    """All of them, in order."""
    return [
        Scene("alone, without Partywall", protected=False, noise=False),
        Scene("alone, with Partywall", protected=True, noise=False),
        Scene("beside the noisy one, without Partywall", protected=False, noise=True),
        Scene("beside the noisy one, with Partywall", protected=True, noise=True),
    ]


async def play(
    street: Street, played: Sequence[Scene], seconds: float, look: Callable[[], None]
) -> None:
    """Plays the scenes one after another.

    Args:
        street: what runs.
        played: the scenes; what is seen is written into them.
        seconds: how long each lasts.
        look: called again and again meanwhile.
    """
    jobs = await Jobs.connect(street.redis_url)
    try:
        for scene in played:
            await _play(street, scene, jobs, seconds, look)
            scene.over = True
            look()
            await jobs.clear(QUIET, NOISY)
    finally:
        await jobs.aclose()


async def _play(
    street: Street, scene: Scene, jobs: Jobs, seconds: float, look: Callable[[], None]
) -> None:
    tenants = {QUIET: (scene.quiet, QUIET_RATE)}
    if scene.noise:
        tenants[NOISY] = (scene.noisy, QUIET_RATE * TIMES)
    seen = {tenant: of for tenant, (of, _) in tenants.items()}
    url = street.protected if scene.protected else street.plain
    await send_requests(url, QUIET, QUIET_RATE, WARM_UP_SECONDS, Seen())

    async def watch() -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            await jobs.collect(seen)
            look()

    watching = asyncio.create_task(watch())
    try:
        async with asyncio.TaskGroup() as tasks:
            for tenant, (of, rate) in tenants.items():
                tasks.create_task(send_requests(url, tenant, rate, seconds, of))
                tasks.create_task(jobs.send(tenant, rate, seconds, of, fairly=scene.protected))
        end = time.monotonic() + GRACE_SECONDS
        while time.monotonic() < end and scene.quiet.waiting:
            await asyncio.sleep(LOOK_SECONDS / 5)
            await jobs.collect(seen)
        scene.ended_at = time.time()
    finally:
        watching.cancel()


def percentiles(times: Sequence[float]) -> tuple[float, float] | None:
    """The median and the 99th percentile; None of fewer than two."""
    if len(times) < 2:
        return None
    cuts = quantiles(times, n=100, method="inclusive")
    return cuts[49], cuts[98]


def job_waits(scene: Scene) -> tuple[list[float], bool]:
    """How long the quiet tenant's jobs waited, and whether some of them wait still.

    Those count with what they have waited so far.
    """
    waiting = scene.quiet.waiting if scene.over else []
    return scene.quiet.started + [scene.ended_at - asked for asked in waiting], bool(waiting)
