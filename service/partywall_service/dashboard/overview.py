"""The first page: who is noisy, who suffers, how much is decided, what is degraded, who waits."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from fastapi import APIRouter, Request, Response

from partywall_service.api.deps import Parts, PartsDep
from partywall_service.dashboard.access import HOME
from partywall_service.dashboard.pages import go, page
from partywall_service.dashboard.reading import Away, or_away
from partywall_service.dashboard.routing import PageRoute
from partywall_service.usage.neighbours import HOUR, STALE
from partywall_service.usage.pulse import Pulse, count
from partywall_service.usage.verdict import Neighbour
from partywall_workers.records import Backlog

MOST_SHOWN = 10
"""Of the noisy, of the victims, and of those who took most besides."""

BUSIEST = 10

EVERY = 5
"""Seconds between loads of a page that is watched."""

router = APIRouter(prefix=HOME, route_class=PageRoute)


@dataclass(frozen=True, slots=True)
class Queues:
    """Jobs of all tenants.

    Attributes:
        tenants: how many have jobs unfinished.
        workers: alive.
        busiest: those with most.
    """

    tenants: int
    workers: int
    busiest: Sequence[Backlog]

    @property
    def whole(self) -> bool:
        """Whether the busiest are all there are."""
        return self.tenants <= len(self.busiest)


@dataclass(frozen=True, slots=True)
class Noise:
    """Who took how much in the last hour.

    Attributes:
        noisy: they took too much.
        victims: they suffered.
        others: who took most of the rest.
    """

    noisy: Sequence[Neighbour]
    victims: Sequence[Neighbour]
    others: Sequence[Neighbour]


@router.get("")
async def show_overview(request: Request, parts: PartsDep) -> Response:
    """All that is known now; a part that cannot be read says so, and the others are there."""
    viewer = request.state.principal
    if viewer.scope == "tenant":
        return go(f"{HOME}/tenants/{viewer.tenant}")
    noise, pulse, queues = await asyncio.gather(
        or_away(_noise(parts)), or_away(_pulse(parts)), or_away(_queues(parts))
    )
    watched = "watch" in request.query_params
    answer = page(
        request,
        "overview",
        {
            "noise": noise,
            "pulse": pulse,
            "queues": queues,
            "degraded": _degraded(parts, noise, pulse, queues),
            "refused": parts.policy.refused,
            "watched": watched,
            "every": EVERY,
        },
    )
    if watched:
        # Only who asked for it: a page that changes under a reader's eyes helps nobody.
        answer.headers["Refresh"] = str(EVERY)
    return answer


async def _noise(parts: Parts) -> Noise:
    """As written last, or as it is where no maintenance job has written it."""
    neighbours = parts.usage.neighbours
    found = await neighbours.snapshot(most=MOST_SHOWN) or await neighbours.judge(HOUR)
    by_verdict = {
        verdict: [one for one in found if one.verdict == verdict][:MOST_SHOWN]
        for verdict in ("noisy", "victim", "normal")
    }
    return Noise(by_verdict["noisy"], by_verdict["victim"], by_verdict["normal"])


async def _pulse(parts: Parts) -> Pulse:
    """As counted last, or as it is where no maintenance job has counted lately."""
    pulse = await parts.usage.pulse.read()
    if pulse is not None and datetime.now(UTC) - pulse.at < STALE:
        return pulse
    return await count(parts.usage.neighbours)


async def _queues(parts: Parts) -> Queues:
    tenants, workers, busiest = await asyncio.gather(
        parts.jobs.busy(), parts.jobs.workers(), parts.jobs.backlogs(limit=BUSIEST)
    )
    return Queues(tenants, workers, busiest)


def _degraded(parts: Parts, *read: object) -> dict[str, str]:
    """What does not work now, with what that means."""
    found = {}
    away = {one.what for one in read if isinstance(one, Away)}
    if not parts.breaker.closed:
        found["Redis"] = "Limits are answered by their on_outage, by each sidecar for itself."
    if "database" in away:
        found["PostgreSQL"] = (
            "Known tenants go on. Changes wait, and quotas that are durable cannot be consumed."
        )
    if "jobs" in away:
        found["The jobs' Redis"] = "No job can be enqueued or started."
    return found
