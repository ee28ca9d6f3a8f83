"""Without the store each process decides by its share."""

from partywall_service.engine.base import Ask, Check, Return
from partywall_service.engine.local import LocalLimiter
from partywall_service.policy.model import Rate

HOUR = 3600


def admitted(limiter: LocalLimiter, check: Check, times: int) -> int:
    return sum(limiter.decide(check).allowed for _ in range(times))


def test_a_process_admits_its_share_of_the_quota():
    assert admitted(LocalLimiter(lambda: 4), Check("acme", "requests", (Rate(40, HOUR),)), 50) == 10


def test_the_share_is_at_least_one():
    assert admitted(LocalLimiter(lambda: 9), Check("acme", "requests", (Rate(3, HOUR),)), 5) == 1


def test_tenants_and_limits_have_windows_of_their_own():
    limiter = LocalLimiter(lambda: 1)
    for tenant, limit in [("acme", "requests"), ("acme", "exports"), ("beta", "requests")]:
        assert admitted(limiter, Check(tenant, limit, (Rate(2, HOUR),)), 3) == 2


def test_every_window_must_have_room_and_a_denial_charges_none():
    limiter = LocalLimiter(lambda: 1)
    narrow = Check("acme", "requests", (Rate(1, HOUR), Rate(5, 24 * HOUR)))
    assert admitted(limiter, narrow, 4) == 1
    verdict = limiter.decide(narrow)
    assert [window.remaining for window in verdict.windows] == [0, 4]
    assert verdict.retry_after is not None
    assert 0 < verdict.retry_after <= HOUR


def test_a_dry_run_charges_nothing_and_a_cost_above_the_quota_never_fits():
    limiter = LocalLimiter(lambda: 1)
    assert admitted(limiter, Check("acme", "r", (Rate(1, HOUR),), dry_run=True), 3) == 3
    assert limiter.decide(Check("acme", "r", (Rate(1, HOUR),), cost=2)).retry_after is None


def test_a_lease_gets_what_it_needs_or_its_cost_and_nothing_ahead():
    limiter = LocalLimiter(lambda: 2)
    ask = Ask("acme", "requests", (Rate(20, HOUR),), 2, 7, 100, "one")
    verdicts = [limiter.decide(ask) for _ in range(4)]
    assert [verdict.granted for verdict in verdicts] == [7, 2, 0, 0]
    assert [verdict.allowed for verdict in verdicts] == [True, True, False, False]
    assert verdicts[2].retry_after is not None
    assert 0 < verdicts[2].retry_after <= HOUR


def test_a_lease_whose_need_never_fits_is_judged_by_its_cost():
    limiter = LocalLimiter(lambda: 1)
    ask = Ask("acme", "requests", (Rate(5, HOUR),), 5, 50)
    assert limiter.decide(ask).granted == 5
    assert limiter.decide(ask).retry_after is not None
    assert limiter.decide(ask._replace(cost=6)).retry_after is None


def test_a_return_changes_nothing():
    limiter = LocalLimiter(lambda: 1)
    rates = (Rate(2, HOUR),)
    assert limiter.decide(Ask("acme", "requests", rates, 1, 2, 0, "one")).granted == 2
    assert limiter.decide(Return("acme", "requests", rates, "one", 2)) == (False, 0.0, (), 0)
    assert not limiter.decide(Check("acme", "requests", rates)).allowed
