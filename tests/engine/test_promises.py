"""Each promise of docs/contract.md section 4 (Limits), on every engine, with hostile arrivals."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partywall_service.engine.base import SLOTS, SUB_BUCKETS
from tests.engine.harness import START, Harness, Subject

SECOND = 1_000_000
each_engine = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

windows = st.sampled_from([1, 2, 7, 60, 3600])
quotas = st.one_of(st.integers(1, 12), st.sampled_from([100, 10_000_000]))
# Fractions of the window between arrivals: bursts, sub-bucket edges, and just beside the window.
gaps = st.one_of(
    st.just(0.0),
    st.floats(0, 0.05),
    st.floats(0, 1.2),
    st.sampled_from([1 / SUB_BUCKETS, 1 - 1 / SUB_BUCKETS, 1.0, 1 + 1 / SUB_BUCKETS]),
)
nudges = st.integers(-1, 1)  # a microsecond before, on and after an edge
fractions = st.floats(0.001, 1.1)  # costs as parts of the quota, some above it
arrivals = st.lists(st.tuples(gaps, nudges, st.one_of(st.just(0.0), fractions)), max_size=60)


def timeline(window: int, quota: int, arrivals: list[tuple[float, int, float]]):
    """Arrivals as microseconds and costs, never before the one before."""
    now = START
    for gap, nudge, fraction in arrivals:
        now = max(now, now + round(gap * window * SECOND) + nudge)
        yield now, max(1, round(fraction * quota))


def heaviest(admitted: list[tuple[int, int]], window: int) -> int:
    """The most cost in any closed interval of the window's length."""
    return max(
        (
            sum(cost for then, cost in admitted if end - window * SECOND <= then <= end)
            for end, _ in admitted
        ),
        default=0,
    )


def exact_wait(
    admitted: list[tuple[int, int]], window: int, quota: int, cost: int, now: int
) -> int:
    """What an exact log of the same admissions would say to a denied cost: microseconds."""
    live = [(then, spent) for then, spent in admitted if then > now - window * SECOND]
    total = sum(spent for _, spent in live)
    wait = 0
    for then, spent in live:
        if total + cost <= quota:
            break
        total -= spent
        wait = then + window * SECOND - now
    return wait


@each_engine
@given(window=windows, quota=quotas, arrivals=arrivals)
def test_no_interval_holds_more_than_the_quota(harness: Harness, window, quota, arrivals):
    subject = Subject(harness, (quota, window))
    admitted = [
        (now, cost)
        for now, cost in timeline(window, quota, arrivals)
        if subject.check(now, cost).allowed
    ]
    assert heaviest(admitted, window) <= quota


@each_engine
@given(
    quota=st.integers(1, 12),
    steps=st.lists(st.tuples(st.floats(-3, 1.5), st.integers(1, 4)), max_size=60),
)
def test_a_clock_stepped_back_admits_nothing_extra(harness: Harness, quota, steps):
    """However the clock jumps, time counts as standing still until it is past the last charge."""
    subject = Subject(harness, (quota, 10))
    now, charged_at, admitted = START, 0, []
    for step, cost in steps:
        now = max(START // 2, now + round(step * 10 * SECOND))
        if subject.check(now, cost).allowed:
            charged_at = max(charged_at, now)
            admitted.append((charged_at, cost))
    assert heaviest(admitted, 10) <= quota


@pytest.mark.parametrize("back", [1, SECOND, 59 * SECOND, 86_400 * SECOND])
def test_a_full_window_stays_full_when_the_clock_goes_back(harness: Harness, back):
    subject = Subject(harness, (3, 60))
    assert subject.check(START, 3).allowed
    assert not subject.check(START + 200 * SECOND, 4).allowed  # looks from the future, in vain
    verdict = subject.check(START - back)
    assert not verdict.allowed
    assert verdict.retry_after is not None
    assert subject.check(START - back + round(verdict.retry_after * SECOND)).allowed


@each_engine
@given(window=windows, quota=quotas, arrivals=arrivals)
def test_retry_after_is_enough_and_hardly_more_than_an_exact_log_says(
    harness: Harness, window, quota, arrivals
):
    subject = Subject(harness, (quota, window))
    admitted: list[tuple[int, int]] = []
    for now, cost in timeline(window, quota, arrivals):
        verdict = subject.check(now, cost)
        if verdict.allowed:
            assert verdict.retry_after == 0
            admitted.append((now, cost))
        elif cost > quota:
            assert verdict.retry_after is None
        else:
            assert verdict.retry_after is not None
            wait = round(verdict.retry_after * SECOND)
            assert subject.check(now + wait, cost, dry_run=True).allowed
            assert wait - exact_wait(admitted, window, quota, cost, now) <= window * SECOND / 25


@each_engine
@given(window=windows, quota=quotas, arrivals=arrivals)
def test_reset_after_is_when_the_window_is_wholly_free(harness: Harness, window, quota, arrivals):
    subject = Subject(harness, (quota, window))
    now = START
    for now, cost in timeline(window, quota, arrivals):
        subject.check(now, cost)
    state = subject.check(now, quota + 1).windows[0]  # a denial shows the window as it stands
    free_at = now + round(state.reset_after * SECOND)
    assert subject.check(free_at, quota, dry_run=True).allowed
    if state.remaining < quota:
        assert not subject.check(free_at - 1, quota, dry_run=True).allowed


@each_engine
@given(arrivals=arrivals, quota=st.integers(1, 12))
def test_denials_and_dry_runs_change_nothing(harness: Harness, arrivals, quota):
    subject = Subject(harness, (quota, 7), (quota + 3, 60))
    for now, cost in timeline(7, quota, arrivals):
        before = subject.snapshot()
        foreseen = subject.check(now, cost, dry_run=True)
        assert subject.snapshot() == before
        verdict = subject.check(now, cost)
        assert verdict == foreseen
        if not verdict.allowed:
            assert subject.snapshot() == before


@each_engine
@given(arrivals=arrivals, short=st.integers(1, 6), long=st.integers(1, 20))
def test_windows_of_one_limit_are_charged_all_or_none(harness: Harness, arrivals, short, long):
    """With either window full the other stays as it was: its remaining equals what was admitted."""
    subject = Subject(harness, (short, 7), (long, 3600))
    admitted: list[tuple[int, int]] = []
    for now, cost in timeline(7, min(short, long), arrivals):
        verdict = subject.check(now, cost)
        if verdict.allowed:
            admitted.append((now, cost))
        if now < START + 3600 * SECOND:
            assert verdict.windows[1].remaining == long - sum(cost for _, cost in admitted)
    assert heaviest(admitted, 7) <= short
    assert heaviest(admitted, 3600) <= long


@pytest.mark.parametrize("quota", [1, 2, 20, 60])
@pytest.mark.parametrize("pressure", [1.5, 4])
def test_sustained_overload_is_admitted_at_95_percent(harness: Harness, quota, pressure):
    """Twenty windows of checks of cost 1, evenly spaced: more than the quota, at least 120 each."""
    subject = Subject(harness, (quota, 10))
    each = max(120, round(quota * pressure))
    moments = [START + place * 10 * SECOND // each for place in range(20 * each)]
    verdicts = [subject.check(now) for now in moments]
    assert 0.95 * quota * 20 <= sum(verdict.allowed for verdict in verdicts) <= quota * 21


def test_a_cost_above_the_quota_can_never_be_admitted(harness: Harness):
    verdict = Subject(harness, (5, 60)).check(START, 6)
    assert (verdict.allowed, verdict.retry_after) == (False, None)
    assert verdict.windows[0].remaining == 5


def test_one_window_that_never_fits_makes_the_wait_endless(harness: Harness):
    subject = Subject(harness, (2, 1), (9, 60))
    assert subject.check(START, 2).allowed
    assert subject.check(START, 3).retry_after is None


def test_a_batch_decides_in_order_and_sees_its_own_charges(harness: Harness):
    subject, other = Subject(harness, (3, 60)), Subject(harness, (1, 60))
    verdicts = harness.decide(
        [subject.asks(2), other.asks(), subject.asks(2), subject.asks(), other.asks()], START
    )
    assert [verdict.allowed for verdict in verdicts] == [True, True, False, True, False]
    assert [verdict.windows[0].remaining for verdict in verdicts] == [1, 0, 1, 0, 0]


def test_two_quotas_of_one_limit_in_one_batch_share_its_window(harness: Harness):
    """As when a policy changes while checks gather: neither may forget what the other charged."""
    old, new = Subject(harness, (5, 60)), Subject(harness, (8, 60))
    new.tenant = old.tenant
    batch = [old.asks(2), new.asks(3), old.asks(1), new.asks(3)]
    verdicts = harness.decide(batch, START)
    assert [verdict.allowed for verdict in verdicts] == [True, True, False, True]
    assert not new.check(START).allowed


def test_a_raised_quota_is_felt_at_once_and_a_lowered_one_keeps_what_was_charged(harness: Harness):
    subject = Subject(harness, (2, 60))
    assert subject.check(START, 2).allowed
    raised = Subject(harness, (5, 60))
    raised.tenant = subject.tenant
    assert raised.check(START, 3).allowed
    assert not subject.check(START).allowed
    assert subject.check(START).windows[0].remaining == 0


def test_state_does_not_grow_with_the_quota(harness: Harness):
    """A quota of ten million, spent over a whole window, is kept in no more than one of ten."""
    sizes = []
    for quota in (10, 10_000_000):
        subject = Subject(harness, (quota, 60))
        for place in range(10 * SUB_BUCKETS):
            subject.check(START + place * 60 * SECOND // SUB_BUCKETS, max(1, quota // 100))
        sizes.append(len(subject.snapshot()[0]))
    assert max(sizes) <= SLOTS + 2
