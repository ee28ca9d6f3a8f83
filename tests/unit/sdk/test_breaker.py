"""The circuit breaker, on a clock of the test's own."""

import logging
from collections.abc import Iterator

import pytest

from partywall.breaker import PATIENCE_SECONDS, PROBE_SECONDS, CircuitBreaker
from partywall.errors import SidecarUnavailable


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> CircuitBreaker:
    return CircuitBreaker("http://there", clock=clock, uniform=lambda low, high: (low + high) / 2)


def fail(breaker: CircuitBreaker, cause: str = "refused") -> None:
    with breaker.enter() as call:
        call.failed(cause)


def refused(breaker: CircuitBreaker) -> bool:
    try:
        breaker.enter()
    except SidecarUnavailable:
        return True
    return False


def test_one_failure_opens_it_and_calls_fail_at_once_with_the_cause(
    breaker: CircuitBreaker,
) -> None:
    assert breaker.closed
    fail(breaker, "nobody answers there")
    assert not breaker.closed
    with pytest.raises(SidecarUnavailable, match="nobody answers there"):
        breaker.enter()


def test_one_call_at_a_time_is_let_through_as_the_probe(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker)
    clock.now += PROBE_SECONDS * 0.99
    assert refused(breaker)
    clock.now += PROBE_SECONDS * 0.02
    with breaker.enter() as probe:
        assert refused(breaker)
        probe.succeeded()
    assert breaker.closed
    assert not refused(breaker)


def test_a_failed_probe_begins_the_wait_anew(breaker: CircuitBreaker, clock: Clock) -> None:
    fail(breaker)
    clock.now += PROBE_SECONDS
    with breaker.enter() as probe:
        clock.now += 0.25
        probe.failed("late")
    assert refused(breaker)
    clock.now += PROBE_SECONDS
    assert not refused(breaker)


def test_the_wait_is_spread_by_a_fifth(clock: Clock) -> None:
    asked: list[tuple[float, float]] = []

    def uniform(least: float, most: float) -> float:
        asked.append((least, most))
        return most

    breaker = CircuitBreaker("http://there", clock=clock, uniform=uniform)
    fail(breaker)
    assert asked == [(0.8, 1.2)]
    clock.now += PROBE_SECONDS * 1.19
    assert refused(breaker)
    clock.now += PROBE_SECONDS * 0.02
    assert not refused(breaker)


def test_a_probe_that_takes_long_does_not_keep_others_from_being_tried(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker)
    clock.now += PROBE_SECONDS
    breaker.enter()
    clock.now += PATIENCE_SECONDS * 0.99
    assert refused(breaker)
    clock.now += PATIENCE_SECONDS * 0.02
    with breaker.enter() as another:
        another.succeeded()
    assert breaker.closed


def test_a_probe_that_its_caller_gave_up_leaves_the_next_call_to_probe(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    fail(breaker)
    clock.now += PROBE_SECONDS
    with pytest.raises(KeyboardInterrupt), breaker.enter():
        raise KeyboardInterrupt
    with breaker.enter() as probe:
        probe.succeeded()
    assert breaker.closed


def test_what_began_before_the_last_change_changes_nothing(
    breaker: CircuitBreaker, clock: Clock
) -> None:
    early, late = breaker.enter(), breaker.enter()
    fail(breaker)
    early.succeeded()
    assert not breaker.closed
    clock.now += PROBE_SECONDS
    with breaker.enter() as probe:
        probe.succeeded()
    late.failed("the sidecar before its restart")
    assert breaker.closed


def test_a_call_without_a_result_neither_opens_nor_closes(breaker: CircuitBreaker) -> None:
    with breaker.enter():
        pass
    assert breaker.closed


@pytest.fixture
def said(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    with caplog.at_level(logging.DEBUG, "partywall"):
        yield caplog


def test_each_change_is_logged_once(
    breaker: CircuitBreaker, clock: Clock, said: pytest.LogCaptureFixture
) -> None:
    first, second = breaker.enter(), breaker.enter()
    first.failed("refused")
    second.failed("refused")
    for _ in range(3):
        assert refused(breaker)
        clock.now += PROBE_SECONDS
        fail(breaker)
    clock.now += PROBE_SECONDS
    for _ in range(3):
        with breaker.enter() as call:
            call.succeeded()
    assert said.messages == [
        "the sidecar at http://there does not answer: refused",
        "the sidecar at http://there answers again",
    ]
