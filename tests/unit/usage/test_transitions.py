"""What is new in a judgement, and told."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from partywall_service.usage.judging import Seen, transitions
from partywall_service.usage.notices import QUIET
from partywall_service.usage.verdict import Neighbour, Verdict

NOON = datetime(2026, 3, 10, 12, tzinfo=UTC)
VERDICTS: tuple[Verdict, ...] = ("noisy", "normal", "victim")


def neighbour(verdict: Verdict, tenant: str = "acme") -> Neighbour:
    return Neighbour(
        tenant, "free", 90, 10, 0, 0, 0.5, 0.1, "requests", verdict, "Because.", 0.5, 0, 0
    )


def told(verdicts: Sequence[tuple[int, Verdict]]) -> list[tuple[int, str]]:
    """What is told of one tenant, judged so after so many minutes: minute and kind."""
    seen: dict[str, Seen] = {}
    found = []
    for minute, verdict in verdicts:
        now = NOON + timedelta(minutes=minute)
        notices, seen = transitions([neighbour(verdict)], seen, now)
        found += [(minute, notice.kind) for notice in notices]
    return found


def test_it_is_told_once_while_it_lasts() -> None:
    assert told([(minute, "noisy") for minute in range(180)]) == [(0, "tenant.noisy")]


def test_it_is_told_again_only_after_a_quiet_time() -> None:
    assert told([(0, "noisy"), (1, "normal"), (14, "noisy")]) == [(0, "tenant.noisy")]
    again = [(0, "victim"), (1, "normal"), (8, "normal"), (15, "victim")]
    assert told(again) == [(0, "tenant.victim"), (15, "tenant.victim")]


def test_a_noisy_one_may_become_a_victim() -> None:
    both = [(0, "tenant.noisy"), (1, "tenant.victim")]
    assert told([(0, "noisy"), (1, "victim"), (2, "noisy"), (3, "victim")]) == both


def test_a_notice_says_what_the_verdict_says() -> None:
    (notice,), seen = transitions([neighbour("noisy")], {}, NOON)
    assert notice.tenant == "acme"
    assert notice.body == {
        "id": notice.id,
        "type": "tenant.noisy",
        "at": "2026-03-10T12:00:00.000Z",
        "tenant": "acme",
        "data": {
            "tier": "free",
            "reason": "Because.",
            "resource": "requests",
            "share": 0.5,
            "fair_share": 0.1,
            "requests": 90,
            "denied": 10,
            "window_seconds": 3600,
        },
    }
    assert seen == {"acme": Seen(noisy_at=NOON)}


@given(st.lists(st.tuples(st.integers(1, 20), st.sampled_from(VERDICTS)), max_size=30))
def test_each_notice_begins_what_was_not_so_for_a_quiet_time(
    steps: list[tuple[int, Verdict]],
) -> None:
    minute, judged = 0, []
    for pause, verdict in steps:
        minute += pause
        judged.append((minute, verdict))
    quiet = QUIET / timedelta(minutes=1)
    for verdict in ("noisy", "victim"):
        so = [minute for minute, one in judged if one == verdict]
        begins = [
            minute
            for place, minute in enumerate(so)
            if place == 0 or minute - so[place - 1] >= quiet
        ]
        assert [minute for minute, kind in told(judged) if kind == f"tenant.{verdict}"] == begins
