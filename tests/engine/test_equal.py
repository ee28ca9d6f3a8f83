"""Every engine answers as the readable reference does, to the microsecond."""

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from partywall_service.engine.base import LEASE_KEPT, LONGEST_HORIZON, Check
from partywall_service.engine.memory import MemoryEngine
from partywall_service.policy.model import Rate
from tests.engine.harness import START, Harness, Subject

rates = st.lists(
    st.tuples(st.sampled_from([1, 3, 10, 50, 10_000_000, 2**53 - 1]), st.sampled_from([1, 2, 60])),
    min_size=1,
    max_size=3,
    unique_by=lambda rate: rate[1],
)
units = st.sampled_from([1, 1, 2, 5, 11, 2**53 - 1])
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
steps = st.lists(
    st.tuples(
        st.one_of(
            st.sampled_from([0, 1, 31_249, 31_250, 10**6, 2 * 10**6, 60 * 10**6, -(10**6)]),
            st.sampled_from([LEASE_KEPT * 1000, LEASE_KEPT * 1000 + 1, 1_875_000, 33 * 31_250]),
            st.integers(-(10**7), 10**8),
            st.integers(-(10**5), 10**5),
        ),
        st.lists(questions, min_size=1, max_size=5),
    ),
    max_size=40,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rates=rates, steps=steps)
def test_every_engine_equals_the_reference(harness: Harness, rates, steps):
    """Checks, leases and returns in any order, under a clock that jumps about."""
    subject = Subject(harness, *rates)
    reference = MemoryEngine()
    now = START
    for step, asked in steps:
        now += step
        batch = [
            subject.asks(2, dry_run=True) if what == "look" else getattr(subject, what)(*arguments)
            for what, arguments in asked
        ]
        expected = [reference.decide_now(question, now / 1_000_000) for question in batch]
        assert harness.decide(batch, now) == expected


def test_the_memory_engine_goes_by_its_clock_when_told_no_moment():
    now = [1000.0]
    engine = MemoryEngine(clock=lambda: now[0])
    check = Check("acme", "requests", (Rate(1, 10),))
    assert engine.decide_now(check).allowed
    assert not engine.decide_now(check).allowed
    now[0] += 10.4
    assert engine.decide_now(check).allowed
