"""The promises of docs/contract.md section 4 (Limits), through leases spent at the worst moment."""

from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partywall_service.engine.base import AHEAD, SLOTS, SUB_BUCKETS, Question, horizon
from tests.engine.adversary import SECOND, Grant, HostApp, heaviest
from tests.engine.harness import START, Harness, Subject

each_engine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


class Lease(NamedTuple):
    """An ask as it is drawn, and what becomes of it.

    In parts of the shortest window the `gap` before and `returned_after`; in parts of the horizon
    `within`, `spent_after` and `asked_again_after`; all units in parts of the smallest quota.
    """

    gap: float
    cost: float
    need: float
    ahead: float
    within: float
    spent_after: float
    returned: float
    returned_after: float
    times: int
    asked_again_after: float | None


limits = st.sampled_from(
    [[(4, 1)], [(12, 2)], [(100, 60)], [(3, 1), (9, 7)], [(30, 2), (40, 60)], [(10**7, 10)]]
)
# Parts of the shortest window to wait: bursts, edges of sub-buckets, the horizon, the window.
gaps = st.one_of(
    st.just(0.0),
    st.floats(0, 0.1),
    st.floats(0, 1.2),
    st.sampled_from([1 / SUB_BUCKETS, 2 / SUB_BUCKETS, 1 / 20, 1 - 1 / SUB_BUCKETS, 1.0]),
)
parts = st.one_of(st.just(1.0), st.floats(0.001, 1.1))  # of the smallest quota
asks = st.builds(
    Lease,
    gap=gaps,
    cost=st.one_of(st.just(0.0), parts),
    need=parts,
    ahead=st.floats(0, 2),
    within=st.one_of(st.just(1.0), st.floats(0, 1)),
    spent_after=st.one_of(st.just(1.0), st.just(0.0), st.floats(0, 1)),
    returned=st.one_of(st.just(0.0), st.just(1.0), st.floats(0, 1)),
    returned_after=gaps,
    times=st.integers(1, 2),
    asked_again_after=st.one_of(st.none(), st.none(), st.floats(0, 1)),
)
checks = st.tuples(st.just("check"), gaps, st.one_of(st.just(0.0), parts))
# Waits that end when the next unit, or some more, have just found room.
until_room = st.tuples(st.just("until room"), st.just(0.0), st.one_of(st.just(0.0), parts))
happenings = st.one_of(checks, asks, asks, until_room, until_room)
events = st.lists(happenings, max_size=50)
clocks = st.one_of(
    st.tuples(st.just("back"), st.one_of(st.floats(0, 0.1), st.floats(0, 3))),
    st.tuples(st.just("freeze"), gaps),
)
events_and_clocks = st.lists(st.one_of(happenings, happenings, clocks), max_size=50)


def play(app: HostApp, subject: Subject, events: list[tuple]) -> None:
    """Lets the app do what was drawn."""
    shortest = min(rate.window for rate in subject.rates) * SECOND
    longest = horizon(subject.rates)
    least = min(rate.quota for rate in subject.rates)

    def units(part: float) -> int:
        return max(1, round(part * least))

    for event in events:
        if isinstance(event, Lease):
            app.wait(round(event.gap * shortest))
            cost, again = units(event.cost), event.asked_again_after
            question = subject.leases(
                cost,
                cost + round(event.need * least),
                round(event.ahead * least),
                within=round(event.within * longest),
            )
            then = Grant(
                spent_after=round(event.spent_after * longest),
                returned=round(event.returned * least),
                returned_after=round(event.returned_after * shortest),
                times=event.times,
                asked_again_after=None if again is None else round(again * longest),
            )
            app.ask(question, then)
            continue
        what, gap, *cost = event
        if what == "back":
            app.set_clock_back(round(gap * shortest))
        elif what == "until room":
            app.wait_for_room(min(least, units(cost[0])))
        else:
            app.wait(round(gap * shortest), frozen=what == "freeze")
            if what == "check":
                app.check(units(cost[0]))
    app.wait(round(1.2 * shortest))


@each_engine
@given(rates=limits, events=events)
def test_no_interval_holds_more_spent_units_than_the_quota(harness: Harness, rates, events):
    subject = Subject(harness, *rates)
    app = HostApp(subject)
    play(app, subject, events)
    for (quota, window), spent in zip(rates, app.spent, strict=True):
        assert heaviest(spent, window) <= quota


@each_engine
@given(rates=limits, events=events_and_clocks)
def test_a_clock_set_back_or_frozen_lets_leases_spend_nothing_extra(
    harness: Harness, rates, events
):
    """Neither by the window's own time nor by the real one."""
    subject = Subject(harness, *rates)
    app = HostApp(subject)
    play(app, subject, events)
    for (quota, window), spent in zip(rates, app.spent, strict=True):
        assert heaviest(spent, window) <= quota
        assert heaviest(app.spent_really, window) <= quota


@each_engine
@given(rates=limits, events=events)
def test_after_leases_and_returns_the_waits_are_enough_and_reset_is_exact(
    harness: Harness, rates, events
):
    subject = Subject(harness, *rates)
    app = HostApp(subject)
    play(app, subject, events)
    least = min(quota for quota, _ in rates)
    for cost in (1, max(1, least // 2), least):
        verdict = subject.check(app.clock, cost, dry_run=True)
        assert verdict.retry_after is not None
        later = app.clock + round(verdict.retry_after * SECOND)
        assert subject.check(later, cost, dry_run=True).allowed
        if not verdict.allowed:
            assert not subject.check(later - 1, cost, dry_run=True).allowed
    for place, state in enumerate(subject.check(app.clock, 2**53 - 1).windows):
        free_at = app.clock + round(state.reset_after * SECOND)
        assert subject.check(free_at, 2**53 - 1).windows[place].remaining == state.quota
        if state.reset_after:
            before = subject.check(free_at - 1, 2**53 - 1).windows[place]
            assert before.remaining < state.quota


@each_engine
@given(
    window=st.sampled_from([1, 2, 7, 60]),
    quota=st.one_of(st.integers(1, 12), st.just(1000)),
    asked=st.lists(st.tuples(gaps, parts, parts, parts, st.booleans()), max_size=50),
)
def test_retry_after_exceeds_an_exact_log_by_the_horizon_and_a_25th_at_most(
    harness: Harness, window, quota, asked
):
    subject = Subject(harness, (quota, window))
    most = window * SECOND // 25 + horizon(subject.rates)
    granted: list[tuple[int, int]] = []
    now = START
    for number, (gap, cost, need, ahead, leased) in enumerate(asked):
        now += round(gap * window * SECOND)
        units = max(1, round(cost * quota))
        if leased:
            wanted = units + round(need * quota)
            verdict = subject.lease(now, units, wanted, round(ahead * quota), f"lease-{number}")
        else:
            verdict = subject.check(now, units)
        if verdict.allowed:
            granted.append((now, verdict.granted or units))
        elif units > quota:
            assert verdict.retry_after is None
        else:
            assert verdict.retry_after is not None
            room, exact = quota - sum(n for t, n in granted if t > now - window * SECOND), 0
            for then, spent in granted:
                if units <= room:
                    break
                if then > now - window * SECOND:
                    room += spent
                    exact = then + window * SECOND - now
            assert 0 <= round(verdict.retry_after * SECOND) - exact <= most


WINDOWS = 10


def lessees_admit(subject: Subject, lessees: int, pressure: float) -> int:
    """Units that lessees spend, taking turns, each from its lease in hand or a new one."""
    [(quota, window)] = subject.rates
    each = max(120, round(quota * pressure))
    hands: list[tuple[str, int, int]] = [("", 0, 0)] * lessees  # a lease, its units, until when
    admitted = 0
    for place in range(WINDOWS * each):
        now = START + place * window * SECOND // each
        lease, units, until = hands[place % lessees]
        if now > until:
            if units:
                subject.give_back(now, lease, units)
            lease = f"lease-{place}"
            verdict = subject.lease(now, 1, 1, quota, lease)
            units = verdict.granted
            wait = round((verdict.retry_after or 0) * SECOND)  # a denial is held so long
            until = now + (horizon(subject.rates) if units else wait - 1)
        if units:
            units -= 1
            admitted += 1
            until = until if units else now
        hands[place % lessees] = (lease, units, until)
    return admitted


@pytest.mark.parametrize(
    ("quota", "pressure"), [(1, 4.0), (2, 4.0), (20, 1.5), (60, 4.0), (400, 1.5)]
)
@pytest.mark.parametrize("lessees", [1, 4])
def test_sustained_overload_through_leases_is_admitted_at_90_percent(
    harness: Harness, quota, pressure, lessees
):
    admitted = lessees_admit(Subject(harness, (quota, 2)), lessees, pressure)
    assert 0.9 * quota * WINDOWS <= admitted <= quota * (WINDOWS + 1)


def test_leases_do_not_move_the_time_of_a_window(harness: Harness):
    """Asking at one moment for ever charges one sub-bucket, and checks go on in the present."""
    subject = Subject(harness, (1000, 1))
    for number in range(100):
        verdict = subject.lease(START, 1, 1, 8, f"lease-{number}")
        assert verdict.windows[0].reset_after <= (SUB_BUCKETS + AHEAD + 1) / SUB_BUCKETS
    assert subject.lease(START, 10**6).retry_after is None
    free = subject.check(START, verdict.windows[0].remaining)
    assert free.allowed
    left = subject.check(START + 33 * SECOND // SUB_BUCKETS, 1000).windows[0].remaining
    assert left == verdict.windows[0].remaining


def test_a_batch_of_checks_leases_and_returns_sees_what_went_before(harness: Harness):
    subject = Subject(harness, (100, 60))
    batch: list[Question] = [
        subject.asks(10),
        subject.leases(2, 5, 8, "one"),
        subject.returns("one", 8),
        subject.returns("one", 8),
        subject.leases(1, 100, 0),
        subject.asks(),
    ]
    verdicts = harness.decide(batch, START)
    assert [verdict.allowed for verdict in verdicts] == [True, True, True, False, True, False]
    assert [verdict.granted for verdict in verdicts] == [0, 13, 8, 0, 85, 0]
    assert [verdict.windows[0].remaining for verdict in verdicts] == [90, 77, 85, 85, 0, 0]


@pytest.mark.parametrize(
    ("quota", "cost", "need", "ahead", "granted"),
    [
        (100, 1, 5, 0, 5),
        (100, 1, 5, 10, 15),
        (100, 1, 5, 1000, 5 + 95 // 8),
        (100, 1, 200, 1000, 100),
        (100, 101, 200, 0, 0),
        (10, 2, 3, 10, 3),  # seven remain: none for later
        (11, 2, 3, 10, 4),
    ],
)
def test_a_lease_gets_what_is_needed_and_a_small_share_of_what_remains(
    harness: Harness, quota, cost, need, ahead, granted
):
    subject = Subject(harness, (quota, 60), (10**6, 3600))
    verdict = subject.lease(START, cost, need, ahead, "one")
    assert (verdict.allowed, verdict.granted) == (granted > 0, granted)
    assert [window.remaining for window in verdict.windows] == [quota - granted, 10**6 - granted]


def test_a_refused_lease_is_told_what_a_check_is_told_and_changes_nothing(harness: Harness):
    subject = Subject(harness, (10, 2), (12, 60))
    assert subject.lease(START, 4, 4, 40, "one").granted == 4
    assert subject.check(START + 40_000, 3).allowed
    before = subject.snapshot()
    refused = subject.lease(START + 50_000, 4, 9, 9, "two")
    assert not refused.allowed
    assert refused == subject.check(START + 50_000, 4)
    assert subject.snapshot() == before
    assert not subject.give_back(START + 50_000, "two", 1).allowed


@pytest.mark.parametrize("units", [1, 13, 10**6])
def test_a_return_that_is_sent_again_changes_nothing(harness: Harness, units):
    subject = Subject(harness, (100, 60), (200, 3600))
    assert subject.lease(START, 5, 5, 8, "one").granted == 13
    first = subject.give_back(START, "one", units)
    taken = min(units, 13)
    assert (first.allowed, first.granted) == (True, taken)
    assert [window.remaining for window in first.windows] == [87 + taken, 187 + taken]
    before = subject.snapshot()
    again = subject.give_back(START, "one", units)
    assert again == first._replace(allowed=False, granted=0)
    assert subject.snapshot() == before


def test_a_return_is_in_time_until_its_lease_is_forgotten(harness: Harness):
    subject = Subject(harness, (100, 60))
    for lease, after, known in [("one", 15_000_000, True), ("two", 15_000_001, False)]:
        remaining = subject.lease(START, 1, 1, 8, lease).windows[0].remaining
        before = subject.snapshot()
        verdict = subject.give_back(START + after, lease, 8)
        assert (verdict.allowed, verdict.granted) == (known, 8 * known)
        assert verdict.windows[0].remaining == remaining + 8 * known
        assert (subject.snapshot() == before) is not known


def test_units_whose_sub_bucket_has_left_are_taken_back_from_nothing(harness: Harness):
    """The slot has another sub-bucket's cost by then."""
    subject = Subject(harness, (100, 1), (1000, 60))
    assert subject.lease(START, 1, 1, 8, "one").granted == 9
    for step in range(1, 50):
        assert subject.check(START + step * SECOND // SUB_BUCKETS, 2).allowed
    verdict = subject.give_back(START + 50 * SECOND // SUB_BUCKETS, "one", 9)
    assert verdict.granted == 9
    assert [window.remaining for window in verdict.windows] == [100 - 2 * 32, 1000 - 2 * 49]


def test_a_return_knows_windows_by_their_length(harness: Harness):
    """As when a policy changes meanwhile: windows that came are left alone, those gone skipped."""
    old, new = Subject(harness, (100, 60), (100, 1)), Subject(harness, (80, 60), (50, 7))
    new.tenant = old.tenant
    assert old.lease(START, 2, 2, 3, "one").granted == 5
    assert new.check(START, 10).allowed
    verdict = new.give_back(START, "one", 5)
    assert [window.remaining for window in verdict.windows] == [70, 40]
    assert [window.remaining for window in old.check(START, 101).windows] == [90, 95]


def test_a_lease_asked_for_twice_is_charged_twice_and_returned_once(harness: Harness):
    """Something on the way sent the question again; one of the two answers is never seen."""
    subject = Subject(harness, (100, 60))
    assert subject.lease(START, 5, 5, 8, "one").granted == 13
    again = subject.lease(START + SECOND, 5, 5, 8, "one")
    assert again.granted == 5  # nothing ahead: its record is taken
    assert subject.give_back(START + SECOND, "one", 20).granted == 13
    assert not subject.give_back(START + SECOND, "one", 20).allowed
    assert subject.check(START + SECOND, 101).windows[0].remaining == 95


def test_a_lease_of_another_tenant_or_limit_is_unknown(harness: Harness):
    subject, other = Subject(harness, (100, 60)), Subject(harness, (100, 60))
    assert subject.lease(START, 1, 1, 8, "one").granted == 9
    assert other.lease(START, 1).granted == 1
    verdict = other.give_back(START, "one", 8)
    assert (verdict.allowed, verdict.granted, verdict.windows[0].remaining) == (False, 0, 99)


@pytest.mark.parametrize("back", [1, SECOND, 100 * SECOND])
def test_a_lease_after_a_clock_set_back_counts_from_where_time_stands(harness: Harness, back):
    subject = Subject(harness, (20, 1))
    assert subject.check(START).allowed
    assert subject.lease(START - back, 19).granted == 19
    verdict = subject.check(START - back)
    assert not verdict.allowed
    stands = subject.check(START).windows[0].reset_after
    assert stands > (SUB_BUCKETS + 1) / SUB_BUCKETS
    assert not subject.check(START + SECOND).allowed


def test_reset_after_is_told_anew_when_the_last_lease_is_given_back(harness: Harness):
    subject = Subject(harness, (100, 1))
    alone = subject.check(START).windows[0].reset_after
    later = START + SECOND // 2
    assert subject.lease(later, 1, 1, 8, "one").windows[0].reset_after > alone
    given_back = subject.give_back(later, "one", 9).windows[0]
    assert given_back.reset_after == pytest.approx(alone - 0.5)
    assert subject.check(START + round(alone * SECOND), 101).windows[0].remaining == 100


def test_a_return_to_a_window_never_used_makes_none(harness: Harness):
    subject = Subject(harness, (100, 60))
    verdict = subject.give_back(START, "one", 8)
    assert (verdict.allowed, verdict.retry_after, verdict.granted) == (False, 0.0, 0)
    assert (verdict.windows[0].remaining, verdict.windows[0].reset_after) == (100, 0.0)
    assert subject.snapshot() == [{}]


def test_state_is_bounded_however_much_is_leased(harness: Harness):
    subject = Subject(harness, (10_000_000, 1))
    for step in range(500):
        now = START + step * SECOND // 50
        subject.lease(now, 1, 5, 100, f"lease-{step}")
        subject.check(now)
        subject.give_back(now, f"lease-{step - 3}", 50)
    assert len(subject.snapshot()[0]) <= SLOTS + 2
