"""Quotas by the synchronous client, and the hooks of both."""

import asyncio
from typing import Any

import pytest

from partywall import Crossing, Partywall, QuotaExceeded, SyncPartywall
from partywall.errors import ConfigurationError
from partywall.testing import FakeSidecar
from tests.unit.sdk.quota_tiers import TIERS

# Crossings


async def test_hooks_are_told_of_each_crossing_once_and_again_after_a_fall() -> None:
    told: list[Crossing] = []

    async with FakeSidecar(TIERS), Partywall(on_crossing=told.append) as pw:
        slowly: list[int] = []

        @pw.on_crossing
        async def and_this(crossing: Crossing) -> None:
            await asyncio.sleep(0)
            slowly.append(crossing.percent)

        await pw.consume("acme", users=3)
        assert told == []
        outcome = await pw.consume("acme", users=1)
        assert told == [Crossing("users", 80, 4, 5, "acme")]
        assert outcome.crossings == tuple(told)
        await pw.consume("acme", users=1)
        assert [crossing.percent for crossing in told] == [80, 95, 100]
        await pw.release("acme", users=3)
        async with pw.reserve("acme", users=2):
            pass
        assert [crossing.percent for crossing in told] == [80, 95, 100, 80]
        assert slowly == [80, 95, 100, 80]


async def test_what_a_hook_raises_is_logged_and_breaks_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(crossing: Crossing) -> None:
        raise ValueError("the hook's own")

    told: list[Crossing] = []
    async with FakeSidecar(TIERS), Partywall(on_crossing=broken) as pw:
        pw.on_crossing(told.append)
        assert await pw.consume("acme", users=4)
    assert len(told) == 1
    [record] = [one for one in caplog.records if "a hook failed" in one.message]
    assert "percent=80" in record.message
    assert record.exc_info is not None


@pytest.mark.parametrize("kind", [Partywall, SyncPartywall])
def test_a_hook_that_cannot_be_called_is_refused(kind: Any) -> None:
    with pytest.raises(ConfigurationError, match="expected on_crossing to be callable"):
        kind(on_crossing="me")
    with pytest.raises(ConfigurationError):
        kind().on_crossing(None)


async def test_thresholds_may_be_a_resources_own() -> None:
    resources: Any = {"users": {"thresholds": [20, 60]}, "emails": {"thresholds": []}}
    told: list[Crossing] = []
    async with (
        FakeSidecar(TIERS, resources=resources),
        Partywall(on_crossing=told.append) as pw,
    ):
        await pw.consume("acme", users=3, emails=10)
    assert [crossing.percent for crossing in told] == [20, 60]


def levels(pw: SyncPartywall, tenant: str = "acme") -> dict[str, tuple[int, int]]:
    """Used and reserved of what was touched."""
    quotas = pw.quotas(tenant)
    return {it.resource: (it.used, it.reserved) for it in quotas if it.used or it.reserved}


# The synchronous face


def test_the_synchronous_client_does_all_of_it_without_await() -> None:
    told: list[Crossing] = []
    with FakeSidecar(TIERS), SyncPartywall(on_crossing=told.append) as pw:
        assert pw.consume("acme", {"api-keys": 1}, users=3, idempotency_key="k")
        assert pw.consume("acme", {"api-keys": 1}, users=3, idempotency_key="k")
        with pytest.raises(QuotaExceeded):
            pw.consume("acme", users=3)
        assert not pw.try_consume("acme", users=3)
        assert pw.release("acme", users=1)
        with pw.reserve("acme", users=1, storage=5) as reservation:
            assert levels(pw)["users"] == (2, 1)
            assert reservation.items == {"users": 1, "storage": 5}
        assert reservation.status == "committed"
        assert pw.quota("acme", "users").used == 3
        assert pw.set_quota("acme", "users", 4, reason="counted").used == 4
        assert [entry.operation for entry in pw.ledger("acme", "users")][:2] == ["set", "commit"]
        assert pw.preview("acme", "pro").over == ()
        [drift] = pw.reconcile("acme", users=lambda: 2)
        assert (drift.drift, drift.repaired) == (-2, True)
        assert levels(pw)["users"] == (2, 0)
    assert [crossing.percent for crossing in told] == []


def test_a_hook_and_a_count_of_the_synchronous_client_may_use_it_themselves() -> None:
    seen: list[int] = []
    with FakeSidecar(TIERS), SyncPartywall() as pw:

        @pw.on_crossing
        def look(crossing: Crossing) -> None:
            seen.append(pw.quota(crossing.tenant, crossing.resource).used)

        @pw.on_crossing
        async def later(crossing: Crossing) -> None:
            await asyncio.sleep(0)
            seen.append(crossing.percent)

        async def count() -> int:
            await asyncio.sleep(0)
            return 1

        pw.consume("acme", users=4)
        assert seen == [4, 80]
        drifts = pw.reconcile(
            "acme", {"api-keys": count}, users=lambda: pw.quota("acme", "users").used
        )
        assert [(drift.drift, drift.repaired) for drift in drifts] == [(1, True), (0, False)]


def test_a_synchronous_reservation_is_kept_without_a_with_too() -> None:
    with FakeSidecar(TIERS), SyncPartywall() as pw:
        kept = pw.reserve("acme", users=3)
        assert (kept.tenant, kept.status, kept.quotas[0].reserved) == ("acme", "held", 3)
        assert kept.commit(users=1).quotas[0].used == 1
        given_back = pw.reserve("acme", users=4, ttl=5)
        assert (given_back.expires_at - kept.expires_at).total_seconds() == -55
        assert given_back.id != kept.id
        assert given_back.cancel().status == "cancelled"
        assert repr(given_back).startswith(f"<SyncReservation {given_back.id} of 'acme', cancelled")
        with pytest.raises(ValueError, match="its own"), pw.reserve("acme", users=1):
            raise ValueError("its own")
        assert levels(pw) == {"users": (1, 0)}
