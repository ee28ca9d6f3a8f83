"""What a person sees of a demo: a table while it runs, and what came of it."""

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from partywall_service.demo.scenes import Scene, job_waits, percentiles

_NONE = "…"


def table(played: Sequence[Scene]) -> Table:
    """The scenes as they stand."""
    shown = Table(
        box=box.SIMPLE, title="The quiet tenant, milliseconds", title_justify="left", pad_edge=False
    )
    shown.add_column("scene")
    for heading in ("requests p50", "p99", "jobs' wait p50", "p99"):
        shown.add_column(heading, justify="right")
    shown.add_column("the noisy tenant")
    for scene in played:
        waits, still = job_waits(scene)
        half = 2 * len(scene.quiet.waiting) > len(waits)
        requests, jobs = percentiles(scene.quiet.answered), percentiles(waits)
        shown.add_row(
            scene.title,
            *(_shown(one) for one in requests or (None, None)),
            _shown(jobs and jobs[0], at_least=still and half),
            _shown(jobs and jobs[1], at_least=still),
            _noise(scene),
        )
    return shown


def sentence(played: Sequence[Scene]) -> str:
    """What the table says, in words; it praises nothing that was not measured."""
    (alone, _), (bare, bare_still), (held, still) = (
        _worst(scene) for scene in (played[1], played[2], played[3])
    )
    requests = [percentiles(scene.quiet.answered) for scene in (played[1], played[2], played[3])]
    if None in requests or not (alone and bare and held):
        return "Too little was measured to say anything: give it more time with --seconds."
    quiet, noise, wall = (one[1] for one in requests if one is not None)
    waited = [
        f"more than {_shown(one)}" if longer else _shown(one)
        for one, longer in ((bare, bare_still), (held, still), (alone, False))
    ]
    return (
        "Beside a noisy neighbour 99 of 100 of the quiet tenant's requests were answered within "
        f"{_shown(noise)} ms without Partywall and {_shown(wall)} ms with it ({_shown(quiet)} ms "
        f"alone). Of its jobs 99 of 100 waited {waited[0]} and {waited[1]} ms at most "
        f"({waited[2]} ms alone)."
    )


def document(played: Sequence[Scene]) -> dict[str, Any]:
    """The same for a program; milliseconds, null where there was too little."""
    scenes = []
    for scene in played:
        waits, still = job_waits(scene)
        of_requests, of_jobs = percentiles(scene.quiet.answered), percentiles(waits)
        scenes.append(
            {
                "scene": scene.title,
                "partywall": scene.protected,
                "noisy": scene.noise,
                "requests": _named(of_requests),
                "jobs": _named(of_jobs) | {"still_waiting": still},
                "noisy_admitted": len(scene.noisy.answered),
                "noisy_denied": scene.noisy.denied,
            }
        )
    return {"scenes": scenes}


def _worst(scene: Scene) -> tuple[float | None, bool]:
    waits, still = job_waits(scene)
    cuts = percentiles(waits)
    return (None if cuts is None else cuts[1]), still


def _named(cuts: tuple[float, float] | None) -> dict[str, float | bool | None]:
    p50, p99 = cuts or (None, None)
    return {
        "p50": None if p50 is None else round(1000 * p50, 1),
        "p99": None if p99 is None else round(1000 * p99, 1),
    }


def _shown(seconds: float | None, *, at_least: bool = False) -> str:
    if seconds is None:
        return _NONE
    milliseconds = 1000 * seconds
    text = f"{milliseconds:,.0f}" if milliseconds >= 10 else f"{milliseconds:.1f}"
    return f"> {text}" if at_least else text


def _noise(scene: Scene) -> str:
    if not scene.noise:
        return "silent"
    noisy = scene.noisy
    return f"{len(noisy.answered):,} requests answered, {noisy.denied:,} denied"
