"""Who is noisy and who suffers, from what tenants did."""

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall_service.usage.verdict import (
    FEWEST_REQUESTS,
    SHORTEST,
    Activity,
    Neighbour,
    Pace,
    judge,
)

SECOND = 1_000_000


def one(tenant: str = "acme", requests: int = 0, **more: object) -> Activity:
    """A tenant's activity; `pace` by its parts."""
    parts = {name: more.pop(name) for name in Pace.__slots__ if name in more}
    return Activity(tenant, "free", requests=requests, pace=Pace(**parts), **more)  # type: ignore[arg-type] # ints


def judged(*all_of_them: Activity, usual: Mapping[str, Pace] | None = None) -> dict[str, Neighbour]:
    return {found.tenant: found for found in judge(all_of_them, usual or {})}


whole = st.integers(0, 10**9)
paces = st.builds(Pace, answered=whole, in_flight=whole, started=whole, wait=whole)


@st.composite
def activities(draw: st.DrawFn) -> list[Activity]:
    found = []
    for number in range(draw(st.integers(0, 8))):
        requests = draw(st.one_of(st.integers(0, 100), whole))
        denied = draw(st.integers(0, requests))
        found.append(
            Activity(
                tenant=f"t{number}",
                tier="free",
                weight=draw(st.floats(0.1, 100)),
                requests=requests,
                denied=denied,
                shed=draw(st.integers(0, denied)),
                run=draw(whole),
                pace=draw(paces),
            )
        )
    return found


usuals = st.dictionaries(st.sampled_from([f"t{number}" for number in range(8)]), paces)


@given(activities(), usuals)
def test_shares_add_up_and_verdicts_keep_their_word(
    done: list[Activity], usual: dict[str, Pace]
) -> None:
    found = judge(done, usual)
    by_tenant = {activity.tenant: activity for activity in done}
    assert [row.share for row in found] == sorted((row.share for row in found), reverse=True)
    assert {row.tenant for row in found} == {
        activity.tenant
        for activity in done
        if activity.requests or activity.run or activity.pace.in_flight or activity.pace.started
    }
    for shares in ("requests_share", "in_flight_share", "jobs_share"):
        total = sum(getattr(row, shares) for row in found)
        assert total == pytest.approx(1) or total == 0
    for row in found:
        shares = {
            "requests": row.requests_share,
            "in_flight": row.in_flight_share,
            "jobs": row.jobs_share,
        }
        assert row.share == shares[row.resource]
        assert 0 <= row.share <= 1
        assert 0 < row.fair_share <= 1
        assert row.reason.endswith(".")
        assert row.reason.count(". ") == 0
        mostly = row.denied > row.requests / 2
        if row.verdict == "victim":
            assert row.share < row.fair_share
        elif row.verdict == "noisy" and not mostly:
            assert row.share > row.fair_share
            assert len(found) >= 2
            assert max(row.requests, row.in_flight_us / SHORTEST, row.job_run_us / SHORTEST) >= 1
        if mostly and row.requests >= FEWEST_REQUESTS:
            assert row.verdict == "noisy" or by_tenant[row.tenant].shed


@given(activities(), usuals, st.sampled_from([0.5, 2.0, 4.0]))
def test_only_the_weights_among_each_other_matter(
    done: list[Activity], usual: dict[str, Pace], times: float
) -> None:
    heavier = [
        Activity(a.tenant, a.tier, a.weight * times, a.requests, a.denied, a.shed, a.run, a.pace)
        for a in done
    ]
    assert judge(heavier, usual) == judge(done, usual)


@given(activities(), usuals)
def test_the_order_in_which_they_come_does_not_matter(
    done: list[Activity], usual: dict[str, Pace]
) -> None:
    before = judge(done, usual)
    after = judge(list(reversed(done)), usual)
    assert [(row.tenant, row.verdict) for row in after] == [
        (row.tenant, row.verdict) for row in before
    ]


@given(st.integers(1, 10**6), st.integers(2, 50))
def test_nobody_is_noisy_where_all_do_the_same(requests: int, tenants: int) -> None:
    found = judged(*(one(f"t{number}", requests) for number in range(tenants)))
    assert {row.verdict for row in found.values()} == {"normal"}
    (fair,) = {row.fair_share for row in found.values()}
    assert fair == pytest.approx(1 / tenants)


def test_more_than_twice_the_fair_share_is_noisy_and_twice_is_not() -> None:
    twice = [one("loud", 500), one("b", 250), one("c", 150), one("d", 100)]
    assert judged(*twice)["loud"].verdict == "normal"
    found = judged(one("loud", 501), *twice[1:])["loud"]
    assert (found.verdict, found.fair_share) == ("noisy", 0.25)
    assert found.reason == (
        "It took 50.0% of all requests, more than twice its fair share of 25.0% among 4 tenants."
    )


def test_a_fair_share_among_thousands_is_more_than_nothing() -> None:
    crowd = [one(f"t{number}", 1) for number in range(3000)]
    found = judged(one("loud", 3000), *crowd)["loud"]
    assert found.reason == (
        "It took 50.0% of all requests, more than twice its fair share of 0.03% among 3,001 "
        "tenants."
    )


def test_a_weight_makes_a_share_fair() -> None:
    light = [one(f"t{number}", 100) for number in range(5)]
    heavy = one("heavy", 500, weight=5)
    found = judged(heavy, *light)["heavy"]
    assert (found.verdict, found.share, found.fair_share) == ("normal", 0.5, 0.5)
    assert found.reason == "It took 50.0% of all requests; its fair share is 50.0%."


def test_of_two_alike_one_is_noisy_that_leaves_the_other_next_to_nothing() -> None:
    found = judged(one("loud", 1000), one("quiet", 10))
    assert found["loud"].verdict == "noisy"
    assert found["loud"].reason == (
        "It took 99.0% of all requests and left the others less than a quarter of their fair share "
        "of 50.0%."
    )
    assert found["quiet"].verdict == "normal"
    assert judged(one("loud", 1000), one("quiet", 200))["loud"].verdict == "normal"
    # Who pays for more than all others together may take nearly everything.
    assert judged(one("loud", 1000, weight=2), one("quiet", 10))["loud"].verdict == "normal"


def test_a_few_requests_are_no_noise() -> None:
    few = [one("loud", FEWEST_REQUESTS - 1, denied=FEWEST_REQUESTS - 1), one("b", 1), one("c", 1)]
    assert judged(*few)["loud"].verdict == "normal"
    assert judged(one("loud", FEWEST_REQUESTS), *few[1:])["loud"].verdict == "noisy"


def test_who_is_alone_is_not_noisy_unless_it_is_denied() -> None:
    found = judged(one("acme", 10_000, denied=5_000))["acme"]
    assert (found.verdict, found.share, found.fair_share) == ("normal", 1, 1)
    assert found.reason == "Nobody else had any requests."
    found = judged(one("acme", 10_000, denied=5_001))["acme"]
    assert found.verdict == "noisy"
    assert found.reason == "5,001 of its 10,000 requests were denied, more than half."


def test_time_in_flight_and_of_jobs_make_noise_as_well() -> None:
    others = [one(f"t{n}", 100, in_flight=SECOND, run=SECOND, started=1) for n in range(5)]
    found = judged(one("slow", 100, in_flight=60 * SECOND, run=SECOND), *others)["slow"]
    assert (found.verdict, found.resource) == ("noisy", "in_flight")
    assert found.reason.startswith("It took 92.3% of all time in flight, ")
    found = judged(one("busy", 100, in_flight=SECOND, run=60 * SECOND, started=1), *others)["busy"]
    assert (found.verdict, found.resource) == ("noisy", "jobs")
    assert found.reason.startswith("It took 92.3% of all job run time, ")


def test_nobody_is_short_of_what_nobody_else_wants() -> None:
    found = judged(one("asks", 1000), one("works", started=9, run=60 * SECOND))
    assert {row.verdict for row in found.values()} == {"normal"}
    assert found["works"].reason == "Nobody else had any job run time."


def test_a_moment_of_work_is_no_resource_to_be_short_of() -> None:
    found = judged(one("a", 100, run=10, started=1), one("b", 100, started=1))
    assert {row.resource for row in found.values()} == {"requests"}


USUAL = Pace(answered=1000, in_flight=80 * SECOND, started=100, wait=100 * SECOND)
LOUD = one("loud", 10_000, answered=10_000, in_flight=50 * SECOND, started=900, run=900 * SECOND)


def test_a_victim_is_slower_than_twice_as_slow_as_usual() -> None:
    slow = one("acme", 100, answered=100, in_flight=16 * SECOND)
    assert judged(slow, LOUD, usual={"acme": USUAL})["acme"].verdict == "normal"
    slow = one("acme", 100, answered=100, in_flight=42 * SECOND)
    found = judged(slow, LOUD, usual={"acme": USUAL})["acme"]
    assert (found.verdict, found.resource) == ("victim", "requests")
    assert found.reason == (
        "It took 1.0% of all requests, less than its fair share of 50.0%, while its requests took "
        "420.0 ms each, more than twice the usual 80.0 ms."
    )


def test_a_victims_jobs_wait_longer_than_twice_as_long_as_usual() -> None:
    waits = one("acme", started=10, run=10 * SECOND, wait=21 * SECOND)
    found = judged(waits, LOUD, usual={"acme": USUAL})["acme"]
    assert (found.verdict, found.resource) == ("victim", "jobs")
    assert found.reason.endswith("its jobs waited 2.1 s each, more than twice the usual 1.0 s.")
    waits = one("acme", started=10, run=10 * SECOND, wait=20 * SECOND)
    assert judged(waits, LOUD, usual={"acme": USUAL})["acme"].verdict == "normal"


@pytest.mark.parametrize(
    ("slow", "usual"),
    [
        (one("acme", 19, answered=19, in_flight=19 * SECOND), USUAL),
        (one("acme", 100, answered=100, in_flight=99 * SECOND), Pace(answered=19, in_flight=19)),
        (one("acme", 100, answered=100, in_flight=400_000), Pace(answered=100, in_flight=1_000)),
        (one("acme", started=4, wait=99 * SECOND, run=1), USUAL),
    ],
    ids=["few now", "few before", "fast all the same", "few jobs"],
)
def test_too_little_tells_no_victim(slow: Activity, usual: Pace) -> None:
    assert judged(slow, LOUD, usual={"acme": usual})["acme"].verdict == "normal"


def test_who_takes_its_share_is_no_victim() -> None:
    slow = one("acme", 10_000, answered=100, in_flight=99 * SECOND)
    assert judged(slow, LOUD, usual={"acme": USUAL})["acme"].verdict == "normal"


def test_a_victim_is_who_is_refused_for_want_of_capacity() -> None:
    shed = one("acme", 100, denied=80, shed=80)
    found = judged(shed, one("loud", 10_000))["acme"]
    assert found.verdict == "victim"
    assert found.reason.endswith("while 80 of its requests were refused for want of capacity.")
    own = one("acme", 100, denied=80, shed=10)  # most of it is its own doing
    assert judged(own, one("loud", 10_000))["acme"].verdict == "noisy"
