"""What answers while no sidecar does: a local window at this process's share, all, or nobody."""

import pytest

from partywall import outage as module
from partywall.decision import Decision, Window
from partywall.errors import SidecarUnavailable
from partywall.outage import LocalWindows, Outage
from partywall.permits import Permits
from partywall.protocol import Permit
from tests.unit.sdk.asgi import Sidecar, answering, denied, granted, request

AGE = 5 * 10**8
"""Seconds: the local windows are cut at multiples of their length, and none of this one is near."""

FORTY = Window(quota=40, window=AGE, remaining=40, reset_after=AGE)
HUNDRED = Window(quota=100, window=2 * AGE, remaining=100, reset_after=2 * AGE)


def times(outage: Outage, count: int, windows: tuple[Window, ...] | None, **more: object) -> int:
    """How many of so many checks are admitted."""
    asked = {"tenant": "acme", "cost": 1, **more}
    return sum(
        outage.decide(tier="free", limit="requests", windows=windows, **asked).allowed  # type: ignore[arg-type] # a test's own options
        for _ in range(count)
    )


@pytest.mark.parametrize(
    ("instances", "share"), [(1, 40), (3, 13), (4, 10), (40, 1), (41, 1), (1000, 1)]
)
def test_a_process_admits_its_share_and_at_least_one(instances, share):
    outage = Outage("local")
    outage.instances = instances
    assert times(outage, 60, (FORTY,)) == share


def test_every_window_must_have_room_and_a_denial_charges_none():
    outage = Outage("local")
    narrow = Window(5, AGE, 5, 0.0)
    assert times(outage, 9, (narrow, HUNDRED)) == 5
    decision = outage.decide("acme", "free", "requests", 1, (narrow, HUNDRED))
    assert [window.remaining for window in decision.windows] == [0, 95]


def test_a_local_decision_says_so_and_how_it_stands():
    outage = Outage("local")
    decision = outage.decide("acme", "free", "requests", 30, (FORTY,))
    assert (decision.allowed, decision.degraded, decision.reason) == (True, True, None)
    assert (decision.remaining, decision.windows[0].quota) == (10, 40)
    decision = outage.decide("acme", "free", "requests", 30, (FORTY,))
    assert (decision.allowed, decision.degraded, decision.reason) == (
        False,
        True,
        "limit-exceeded",
    )
    assert decision.retry_after is not None
    assert 0 < decision.retry_after <= AGE
    assert outage.decide("acme", "free", "requests", 41, (FORTY,)).retry_after is None


def test_tenants_and_limits_have_windows_of_their_own():
    outage = Outage("local")
    for tenant, limit in [("acme", "requests"), ("beta", "requests"), ("acme", "exports")]:
        asked = [outage.decide(tenant, "free", limit, 1, (FORTY,)) for _ in range(50)]
        assert sum(one.allowed for one in asked) == 40


def test_who_was_never_spoken_of_gets_the_most_generous_rate_seen():
    outage = Outage("local")
    assert times(outage, 500, None) == 500
    outage.learn("requests", (FORTY,))
    outage.learn("requests", (HUNDRED,))
    outage.learn("requests", (FORTY,))
    assert times(outage, 500, None, tenant="new") == 100


def test_what_is_known_as_unlimited_stays_so():
    outage = Outage("local")
    outage.learn("requests", (FORTY,))
    assert times(outage, 500, ()) == 500


def test_open_admits_everybody_and_says_so():
    decision = Outage("open").decide("acme", "free", "requests", 10**9, (FORTY,))
    assert decision == Decision(True, "acme", "free", "requests", 10**9, degraded=True)


def test_closed_admits_nobody_and_calls_it_no_limit():
    decision = Outage("closed").decide("acme", "free", "requests", 1, (FORTY,))
    assert (decision.allowed, decision.reason, decision.degraded) == (False, "unavailable", True)


def test_whatever_names_clients_make_up_the_local_windows_stay_bounded(monkeypatch):
    monkeypatch.setattr(module, "MOST_COUNTERS", 50)
    windows = LocalWindows()
    for number in range(1000):
        windows.decide((f"t{number}", "requests"), [(40, AGE), (90, 2 * AGE)], 1, instances=1)
        assert len(windows._storage.storage) <= 51


class TestInPermits:
    async def outage_after(self, answer: object) -> tuple[Sidecar, Permits]:
        """Permits that heard of acme, and then no more."""
        sidecar = Sidecar(answer)  # type: ignore[arg-type] # a test's own
        sidecar.instances = 4
        self.now = 100.0
        permits = Permits(sidecar.lease, clock=lambda: self.now)
        await permits.decide("acme", "requests")
        sidecar.away = SidecarUnavailable("away")
        self.now += 1.0
        return sidecar, permits

    async def test_the_share_is_of_the_instances_that_the_sidecar_last_spoke_of(self):
        _, permits = await self.outage_after(lambda ask: granted(ask, FORTY))
        decisions = [await permits.decide("acme", "requests") for _ in range(50)]
        assert sum(one.allowed for one in decisions) == 10
        assert all(one.degraded and one.tier == "free" for one in decisions)
        assert permits.counts == (11, 40, 50)

    @pytest.mark.parametrize("reason", ["tenant-suspended", "unknown-tenant", "unavailable"])
    async def test_a_tenant_that_was_refused_does_not_become_unlimited(self, reason):
        def answer(ask: object) -> Permit:
            if ask.tenant == "acme":  # type: ignore[attr-defined] # an Ask
                return Permit(False, "free", reason)
            return granted(ask, FORTY)  # type: ignore[arg-type] # as above

        sidecar, permits = await self.outage_after(answer)
        sidecar.away = None
        await permits.decide("beta", "requests")
        sidecar.away = SidecarUnavailable("away")
        self.now += 1.0
        decisions = [await permits.decide("acme", "requests") for _ in range(50)]
        assert sum(one.allowed for one in decisions) == 10

    async def test_a_limit_that_was_closed_in_redis_s_outage_keeps_its_windows(self):
        answers = iter(
            [lambda ask: granted(ask, FORTY), lambda ask: Permit(False, "free", "unavailable")]
        )
        sidecar, permits = await self.outage_after(lambda ask: next(answers)(ask))
        sidecar.away = None
        assert (await permits.decide("acme", "requests")).reason == "unavailable"
        sidecar.away = SidecarUnavailable("away")
        self.now += 1.0
        decisions = [await permits.decide("acme", "requests") for _ in range(50)]
        assert sum(one.allowed for one in decisions) == 10

    async def test_a_tenant_that_the_sidecar_cannot_read_is_decided_by_what_was_known_of_it(self):
        answers = iter([lambda ask: granted(ask, FORTY)])
        unread = Permit(False, None, "unavailable", seconds=0.4, retry_after=1.0)
        sidecar, permits = await self.outage_after(
            lambda ask: next(answers, lambda ask: unread)(ask)
        )
        sidecar.away = None
        decisions = [await permits.decide("acme", "requests") for _ in range(50)]
        assert sum(one.allowed for one in decisions) == 10
        assert all(one.degraded and one.tier == "free" for one in decisions)

    async def test_the_sidecar_is_asked_again_soon_and_believed_at_once(self):
        sidecar, permits = await self.outage_after(lambda ask: denied(FORTY))
        for _ in range(100):
            await permits.decide("acme", "requests")
        assert len(sidecar.seen) == 2
        sidecar.away = None
        self.now += 0.06
        decision = await permits.decide("acme", "requests")
        assert (decision.allowed, decision.degraded) == (False, False)


@pytest.mark.parametrize(("on_outage", "status"), [("local", 200), ("open", 200), ("closed", 503)])
async def test_the_middleware_answers_by_on_outage(on_outage, status):
    sidecar = Sidecar()
    sidecar.away = SidecarUnavailable("away")
    app = sidecar.governing(answering(), client=sidecar.client(on_outage=on_outage))
    for _ in range(3):
        assert (await request(app)).status == status


async def test_a_denial_in_an_outage_is_a_denial_like_any_other():
    sidecar = Sidecar(lambda ask: granted(ask, Window(1, AGE, 1, 0.0), granted=ask.need))
    app = sidecar.governing(answering())
    assert (await request(app)).status == 200
    sidecar.away = SidecarUnavailable("away")
    assert (await request(app)).status == 200
    answer = await request(app)
    assert answer.status == 429
    assert answer.problem["violated-policies"] == ["requests"]
