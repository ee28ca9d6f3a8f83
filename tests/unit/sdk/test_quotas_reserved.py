"""Reservations by the client: what ends with its block, and what ends otherwise."""

import asyncio
from typing import Any

import httpx
import pytest

from partywall import (
    Conflict,
    InvalidRequest,
    Partywall,
    QuotaExceeded,
    SidecarUnavailable,
    UnknownReservation,
)
from partywall.testing import FakeSidecar
from tests.unit.sdk.quota_tiers import TIERS


async def test_a_block_that_ends_commits_what_it_reserved() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        async with pw.reserve("acme", users=1, storage=100) as reservation:
            assert reservation.id
            users = await pw.quota("acme", "users")
            assert (users.used, users.reserved, users.remaining) == (0, 1, 4)
        assert (reservation.status, reservation.tenant) == ("committed", "acme")
        users, storage, *_ = await pw.quotas("acme")
        assert (users.used, users.reserved, storage.used) == (1, 0, 100)


@pytest.mark.parametrize("raised", [ValueError, asyncio.CancelledError, KeyboardInterrupt])
async def test_a_block_that_raises_gives_back_what_it_reserved(raised: Any) -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        with pytest.raises(raised):
            async with pw.reserve("acme", users=1) as reservation:
                raise raised
        assert reservation.status == "cancelled"
        users = await pw.quota("acme", "users")
        assert (users.used, users.reserved) == (0, 0)


async def test_a_block_whose_task_is_cancelled_gives_back_what_it_reserved() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        inside = asyncio.Event()

        async def create() -> None:
            async with pw.reserve("acme", users=1):
                inside.set()
                await asyncio.Event().wait()

        task = asyncio.create_task(create())
        await inside.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await pw.quota("acme", "users")).reserved == 0


class Held(httpx.AsyncBaseTransport):
    """Holds up what ends a reservation until it is told to go on."""

    def __init__(self, to: httpx.AsyncBaseTransport) -> None:
        self.to = to
        self.came = asyncio.Event()
        self.go_on = asyncio.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        if "reservations" in request.url.path:
            self.came.set()
            await self.go_on.wait()
        return await self.to.handle_async_request(request)


async def test_a_task_that_is_cancelled_while_its_block_commits_has_committed() -> None:
    with FakeSidecar(TIERS) as sidecar:
        held = Held(sidecar._line)
    async with Partywall("http://there", "t", transport=held) as pw:

        async def create() -> None:
            async with pw.reserve("acme", users=1):
                pass

        task = asyncio.create_task(create())
        await held.came.wait()
        task.cancel()
        await asyncio.sleep(0)
        held.go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await task
        users = await pw.quota("acme", "users")
        assert (users.used, users.reserved) == (1, 0)


async def test_without_room_the_block_is_not_entered() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        with pytest.raises(QuotaExceeded, match="6 of 'users': 0 of 5 used"):
            async with pw.reserve("acme", users=6):
                pytest.fail("entered")
        with pytest.raises(QuotaExceeded):
            await pw.reserve("acme", users=6)


async def test_a_reservation_is_committed_in_part_and_the_rest_goes_back() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        async with pw.reserve("acme", users=3, storage=100) as reservation:
            settled = await reservation.commit(users=2)
        assert settled.status == "committed"
        assert [(it.resource, it.used, it.reserved) for it in settled.quotas] == [
            ("users", 2, 0),
            ("storage", 0, 0),
        ]
        assert await reservation.commit(users=2) == settled
        for refused, error in [
            (reservation.commit(), Conflict),
            (reservation.commit(users=4), InvalidRequest),
            (reservation.commit(users=0), InvalidRequest),
            (reservation.commit({}), InvalidRequest),
            (reservation.cancel(), Conflict),
        ]:
            with pytest.raises(error):
                await refused


async def test_a_block_that_ended_its_reservation_itself_ends_it_once() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        async with pw.reserve("acme", users=3) as reservation:
            await reservation.cancel()
        assert reservation.status == "cancelled"
        with pytest.raises(KeyError):  # noqa: PT012 - the block is what is tested
            async with pw.reserve("acme", users=2) as reservation:
                await reservation.commit()
                raise KeyError
        assert (reservation.status, (await pw.quota("acme", "users")).used) == ("committed", 2)


async def test_a_reservation_that_expires_goes_back_and_cannot_be_committed() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        reservation = await pw.reserve("acme", users=3, ttl=30)
        assert reservation.expires_at.timestamp() == sidecar.now + 30
        sidecar.advance(29.999999)
        assert (await pw.quota("acme", "users")).reserved == 3
        sidecar.advance(0.000001)
        assert (await pw.quota("acme", "users")).reserved == 0
        with pytest.raises(Conflict, match="expired"):
            await reservation.commit()
        assert (await reservation.cancel()).status == "cancelled"
        with pytest.raises(Conflict):
            async with pw.reserve("acme", users=3, ttl=30):
                sidecar.advance(60)


async def test_what_is_reserved_counts_in_the_period_in_which_it_was_reserved() -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        sidecar.advance(31 * 86400 - 10)
        reservation = await pw.reserve("acme", emails=10)
        sidecar.advance(10)
        assert await pw.consume("acme", emails=10)
        assert (await reservation.commit()).quotas[0].used == 10


async def test_that_a_reservation_could_not_be_given_back_hides_no_error_of_the_block(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with FakeSidecar(TIERS) as sidecar, Partywall() as pw:
        with pytest.raises(ValueError, match="its own"):  # noqa: PT012 - as above
            async with pw.reserve("acme", users=1) as reservation:
                sidecar.fail()
                raise ValueError("its own")
        sidecar.restore()
        assert f"reservation {reservation.id} of acme is left to expire" in caplog.text
        with pytest.raises(SidecarUnavailable):
            async with pw.reserve("acme", users=1):
                sidecar.fail()


async def test_a_reservation_repeated_by_its_key_is_the_same_one() -> None:
    async with FakeSidecar(TIERS), Partywall() as pw:
        first = await pw.reserve("acme", users=3, idempotency_key="k")
        again = await pw.reserve("acme", users=3, idempotency_key="k")
        assert first.id == again.id
        assert (await pw.quota("acme", "users")).reserved == 3
        first.id = "nobody-made-this"
        with pytest.raises(UnknownReservation):
            await first.commit()
