"""Every engine answers as the readable reference does, to the microsecond."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partywall_service.engine.base import LEASE_KEPT, LONGEST_HORIZON, Check, Question
from partywall_service.engine.memory import MemoryEngine
from partywall_service.policy.model import Rate
from tests.conftest import SOAK
from tests.engine.harness import START, Harness, Subject

on_servers = pytest.mark.parametrize(
    "harness", ["fakeredis", "valkey", *(["cluster"] if SOAK else [])], indirect=True
)

rates = st.lists(
    st.tuples(
        st.sampled_from([1, 3, 50, 10_000_000, 10_000_000, 2**53 - 1]), st.sampled_from([1, 2, 60])
    ),
    min_size=1,
    max_size=3,
    unique_by=lambda rate: rate[1],
)
units = st.sampled_from([1, 1, 1, 2, 5, 11, 2**53 - 1])
leases = st.sampled_from(["a", "b", "c", "d"])  # few, so that some are asked for twice
within = [0, 31_250, LONGEST_HORIZON]
questions = st.one_of(
    st.tuples(st.just("asks"), st.tuples(units)),
    st.tuples(
        st.just("leases"),
        st.tuples(units, units, st.sampled_from([0, 1, 9, 10**7]), leases, st.sampled_from(within)),
    ),
    st.tuples(st.just("returns"), st.tuples(leases, units)),
    st.just(("look", ())),
)
steps = st.one_of(
    st.sampled_from([0, 1, 31_249, 31_250, 62_500, 10**6, 33 * 31_250, 1_875_000, 60 * 10**6]),
    st.sampled_from([LEASE_KEPT * 1000, LEASE_KEPT * 1000 + 1, -(10**6), -31_250]),
    st.integers(0, 70 * 31_250),
    st.integers(-(10**7), 10**8),
)
# Each batch some times over, so that rings become dense: what left a turn ago shows in full slots.
batches = st.tuples(
    steps,
    st.one_of(st.just(1), st.integers(2, 40)),
    st.lists(questions, min_size=1, max_size=4),
)


@on_servers
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates=rates, batches=st.lists(batches, max_size=12))
def test_every_engine_equals_the_reference(harness: Harness, rates, batches):
    """Checks, leases and returns in any order, under a clock that jumps about."""
    subject = Subject(harness, *rates)
    reference = MemoryEngine()
    now = START
    for step, times, asked in batches:
        batch = [
            subject.asks(2, dry_run=True) if what == "look" else getattr(subject, what)(*arguments)
            for what, arguments in asked
        ]
        for _ in range(times):
            now += step
            expected = [reference.decide_now(question, now / 1_000_000) for question in batch]
            assert harness.decide(batch, now) == expected


WIDTH = 31_250
"""Of a second's sub-bucket, in microseconds."""


@on_servers
@pytest.mark.parametrize("filled", [1, 5, 40])
@pytest.mark.parametrize("what", ["ask", "return", "check", "return then ask"])
def test_a_ring_full_of_leases_equals_the_reference_when_time_moves_on(
    harness: Harness, filled, what
):
    """In steps of a sub-bucket: what has left shares its slots with what is charged ahead."""
    for gap in [0, 1, 2, 3, 5, 20, 30, 32, 33, 34, 35, 36, 70]:
        subject, reference = Subject(harness, (10_000, 1)), MemoryEngine()
        look = subject.asks(10_001)
        now = START + 20_000  # from where a lease is charged two sub-buckets ahead

        def compare(moment: int, *batch: Question, reference: MemoryEngine = reference) -> None:
            expected = [reference.decide_now(question, moment / 1_000_000) for question in batch]
            assert harness.decide(batch, moment) == expected

        compare(now, subject.asks(7))
        now += (40 - filled) * WIDTH
        for step in range(filled):
            now += WIDTH
            compare(now, subject.leases(1, 2, 3, f"lease-{step}"))
        last = now
        now += gap * WIDTH
        returned = [subject.returns(f"lease-{step}", 5) for step in range(filled - 1, -1, -1)]
        if "return" in what:
            compare(now, look, *returned[:2], look)
        if "ask" in what:
            compare(now, subject.leases(2, 3, 4, "new"))
        if what == "check":
            compare(now, subject.asks())
        for moment in [last, last - 10 * WIDTH, *range(now, now + 40 * WIDTH, WIDTH)]:
            compare(moment, look)
        compare(now, *returned, look)
        for moment in range(now, now + 40 * WIDTH, WIDTH):
            compare(moment, look, subject.asks())


def test_the_memory_engine_goes_by_its_clock_when_told_no_moment():
    now = [1000.0]
    engine = MemoryEngine(clock=lambda: now[0])
    check = Check("acme", "requests", (Rate(1, 10),))
    assert engine.decide_now(check).allowed
    assert not engine.decide_now(check).allowed
    now[0] += 10.4
    assert engine.decide_now(check).allowed
