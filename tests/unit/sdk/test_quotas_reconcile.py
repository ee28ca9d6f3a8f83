"""Counting anew: the drift is told, then repaired, and what changes meanwhile is never lost."""

from typing import Any

import pytest

from partywall import Conflict, Drift, InvalidRequest, Partywall, UnknownResource
from partywall.testing import FakeSidecar
from partywall.transport import Backoff
from tests.unit.sdk.quota_tiers import TIERS


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Backoff, "delay", lambda self, failures: 0.0)


async def test_the_drift_is_told_and_repaired_and_stands_in_the_ledger(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def stored() -> int:
        return 100

    async with FakeSidecar(TIERS), Partywall() as pw:
        await pw.consume("acme", users=3, storage=100)
        drifts = await pw.reconcile("acme", users=lambda: 5, storage=stored)
        assert drifts == [
            Drift("users", used=3, counted=5, drift=2, repaired=True),
            Drift("storage", used=100, counted=100, drift=0),
        ]
        assert "'users' of tenant 'acme': 3 in use, and 5 counted" in caplog.text
        users = [entry async for entry in pw.ledger("acme", "users")]
        assert (users[0].operation, users[0].delta, users[0].reason) == ("set", 2, "reconcile")


async def test_a_dry_run_only_tells() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        await pw.consume("acme", {"api-keys": 1})
        drifts = await pw.reconcile("acme", {"api-keys": lambda: 0}, dry_run=True)
        assert drifts == [Drift("api-keys", used=1, counted=0, drift=-1)]
        assert (await pw.quota("acme", "api-keys")).used == 1


@pytest.mark.parametrize("dry_run", [False, True])
async def test_what_is_consumed_while_it_is_counted_is_counted_too(dry_run: bool) -> None:
    rows = ["ann", "bob", "cem"]  # of which the quota knows none
    meanwhile = iter(["dan", "eve"])

    async with FakeSidecar(TIERS), Partywall() as pw:

        async def count() -> int:
            counted = len(rows)
            for row in meanwhile:
                await pw.consume("acme", users=1)
                rows.append(row)
                break
            return counted

        drifts = await pw.reconcile("acme", users=count, dry_run=dry_run)
        assert drifts == [Drift("users", used=2, counted=5, drift=3, repaired=not dry_run)]
        assert (await pw.quota("acme", "users")).used == (2 if dry_run else 5)


async def test_a_resource_that_is_never_still_is_left_as_it_is_and_said_to_be(
    caplog: pytest.LogCaptureFixture,
) -> None:
    counts: list[int] = []
    async with FakeSidecar(TIERS), Partywall() as pw:

        async def count() -> int:
            await (pw.release if len(counts) % 2 else pw.consume)("acme", users=1)
            counts.append(4)
            return 4

        [drift] = await pw.reconcile("acme", users=count)
        assert (drift.counted, drift.repaired, drift.unsettled) == (4, False, True)
        assert len(counts) == 5
        assert "changes too often to be counted" in caplog.text
        assert (await pw.quota("acme", "users")).used == 1


async def test_a_change_that_leaves_no_drift_behind_is_looked_at_again() -> None:
    """One that was counted before it was consumed: at first sight nothing is wrong."""
    counts = iter([0, 1])
    async with FakeSidecar(TIERS), Partywall() as pw:

        async def count() -> int:
            counted = next(counts)
            if counted == 0:
                await pw.consume("acme", users=1)
            return counted

        assert await pw.reconcile("acme", users=count) == [Drift("users", 1, 1, 0)]


async def test_nothing_is_set_while_some_of_it_is_reserved() -> None:
    """Its row may be there already, and its commit is still to come: it would be had twice."""
    async with FakeSidecar(TIERS), Partywall() as pw:
        reservation = await pw.reserve("acme", users=1)
        [drift] = await pw.reconcile("acme", users=lambda: 1)
        assert (drift.repaired, drift.unsettled) == (False, True)
        await reservation.commit()
        assert await pw.reconcile("acme", users=lambda: 1) == [Drift("users", 1, 1, 0)]


async def test_a_reservation_that_ends_meanwhile_is_waited_for() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        reservation = await pw.reserve("acme", users=1)

        async def count() -> int:
            await reservation.commit()
            return 1

        assert await pw.reconcile("acme", users=count) == [Drift("users", 1, 1, 0)]


@pytest.mark.parametrize("counted", [-1, 1.0, True, None, "3"])
async def test_a_count_that_can_be_none_is_refused_and_changes_nothing(counted: Any) -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        await pw.consume("acme", users=1)
        with pytest.raises(InvalidRequest) as raised:
            await pw.reconcile("acme", users=lambda: counted)
        assert raised.value.errors[0][0] == "counts.users"
        assert (await pw.quota("acme", "users")).used == 1


async def test_what_cannot_be_counted_is_refused() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        with pytest.raises(InvalidRequest, match="expected a callable; got 5"):
            await pw.reconcile("acme", users=5)  # type: ignore[arg-type] # what is refused
        with pytest.raises(InvalidRequest, match="at least one resource"):
            await pw.reconcile("acme")
        with pytest.raises(UnknownResource):
            await pw.reconcile("acme", seats=lambda: 1)
        with pytest.raises(Conflict, match="the count's own"):
            await pw.reconcile("acme", users=_raises)


def _raises() -> int:
    raise Conflict("the count's own")
