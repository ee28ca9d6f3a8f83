"""The SDK's quotas against real sidecars: races, outages, counting while it changes."""

import asyncio
import random
from collections.abc import AsyncIterator, Iterator

import pytest

from partywall import (
    Conflict,
    Crossing,
    Forbidden,
    Partywall,
    QuotaExceeded,
    SidecarUnavailable,
    SyncPartywall,
    UnknownTenant,
)
from tests.acceptance.asking import fresh_tenant, new_token, until
from tests.conftest import SidecarFactory
from tests.support.processes import fixed_port
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import Sidecar

QUOTAS = """
[tiers.free.quotas]
users = 10
storage = "1 MiB"
sessions = 10

[resources.sessions]
durable = false
"""


@pytest.fixture(scope="module")
def one(test_run: TestRun) -> Iterator[Sidecar]:
    """A sidecar for all tests here that only ask; each brings tenants of its own."""
    with shared_sidecars(test_run, QUOTAS) as (sidecar,):
        yield sidecar


@pytest.fixture
async def pw(one: Sidecar) -> AsyncIterator[Partywall]:
    """A client with a host app's token."""
    async with one.client() as admin:
        token = (await new_token(admin, "host"))["token"]
    async with Partywall(one.url, token) as client:
        yield client


@pytest.fixture
async def acme(pw: Partywall) -> str:
    tenant = fresh_tenant()
    await pw.put_tenant(tenant, tier="free")
    return tenant


@pytest.mark.parametrize("resource", ["users", "sessions"])
async def test_of_many_that_consume_at_once_as_many_are_allowed_as_there_is_room(
    one: Sidecar, pw: Partywall, acme: str, resource: str
) -> None:
    async with Partywall(one.url, one.admin_token) as other:
        outcomes = await asyncio.gather(
            *((pw if n % 2 else other).try_consume(acme, {resource: 1}) for n in range(60))
        )
    assert sum(outcome.allowed for outcome in outcomes) == 10
    quota = await pw.quota(acme, resource)
    assert (quota.used, quota.remaining) == (10, 0)
    entries = [entry.delta async for entry in pw.ledger(acme, resource)]
    assert entries == ([1] * 10 if resource == "users" else [])
    with pytest.raises(QuotaExceeded, match=f"1 of '{resource}': 10 of 10 used"):
        await pw.consume(acme, {resource: 1})


async def test_blocks_that_end_and_blocks_that_raise_leave_exactly_what_was_made(
    pw: Partywall, acme: str
) -> None:
    dice = random.Random(acme)
    made: list[int] = []

    async def create(n: int) -> None:
        async with pw.reserve(acme, users=1, storage=n + 1):
            if dice.random() < 0.4:
                raise RuntimeError("could not be made")
            made.append(n + 1)

    results = await asyncio.gather(*(create(n) for n in range(40)), return_exceptions=True)
    assert {type(result) for result in results} <= {type(None), RuntimeError, QuotaExceeded}
    users, storage, _ = await pw.quotas(acme)
    assert (users.used, users.reserved) == (len(made), 0)
    assert (storage.used, storage.reserved) == (sum(made), 0)
    assert 0 < len(made) <= 10


async def test_a_reservation_that_nobody_ends_goes_back_by_itself(pw: Partywall, acme: str) -> None:
    left = await pw.reserve(acme, users=10, ttl=1)

    async def is_back() -> bool:
        return (await pw.quota(acme, "users")).remaining == 10

    assert not await is_back()
    await until(is_back)
    with pytest.raises(Conflict):
        await left.commit()
    assert (await left.cancel()).status == "cancelled"


async def test_counting_anew_loses_nothing_that_happens_meanwhile(pw: Partywall, acme: str) -> None:
    rows = [0, 0, 0]  # made without asking
    inserted = asyncio.Event()

    async def signing_up() -> None:
        for _ in range(4):
            async with pw.reserve(acme, users=1):
                rows.append(1)
                inserted.set()

    async def count() -> int:
        counted = len(rows)
        if len(rows) < 7:
            await inserted.wait()  # so that at least one change falls into the counting
        return counted

    signups = asyncio.create_task(signing_up())
    [drift] = await pw.reconcile(acme, users=count)
    await signups
    if drift.unsettled:
        [drift] = await pw.reconcile(acme, users=count)
    assert drift.repaired
    assert (await pw.quota(acme, "users")).used == len(rows) == 7
    [again] = await pw.reconcile(acme, users=count, dry_run=True)
    assert (again.drift, again.unsettled) == (0, False)
    deltas = [entry.delta async for entry in pw.ledger(acme, "users")]
    assert sum(deltas) == 7


async def test_crossings_are_told_in_this_process_and_shown_to_every_other(
    pw: Partywall, acme: str
) -> None:
    told: list[Crossing] = []
    pw.on_crossing(told.append)
    await pw.consume(acme, users=7)
    async with pw.reserve(acme, users=1):
        pass
    assert told == [Crossing("users", 80, 8, 10, acme)]
    quota = await pw.quota(acme, "users")
    assert (quota.crossed, quota.crossed_at is not None) == (80, True)


async def test_a_tenants_own_token_reads_its_quotas_and_changes_none(
    one: Sidecar, pw: Partywall, acme: str
) -> None:
    await pw.consume(acme, users=2)
    async with one.client() as admin:
        token = (await new_token(admin, f"tenant:{acme}"))["token"]
    async with Partywall(one.url, token) as own:
        assert (await own.quota(acme, "users")).used == 2
        assert [entry.delta async for entry in own.ledger(acme)] == [2]
        for refused in (own.consume(acme, users=1), own.set_quota(acme, "users", 1)):
            with pytest.raises(Forbidden):
                await refused
        with pytest.raises(Forbidden):
            await own.reserve(acme, users=1)
    with pytest.raises(UnknownTenant):
        await pw.consume(fresh_tenant(), users=1)


def test_the_synchronous_client_takes_holds_and_counts(one: Sidecar) -> None:
    acme = fresh_tenant()
    with SyncPartywall(one.url, one.admin_token) as pw:
        pw.put_tenant(acme, tier="free")
        pw.consume(acme, users=3, sessions=1)
        with pw.reserve(acme, users=2, sessions=2):
            assert pw.quota(acme, "users").reserved == 2
        with pytest.raises(QuotaExceeded), pw.reserve(acme, users=6):
            pytest.fail("entered")
        assert {it.resource: it.used for it in pw.quotas(acme)}["sessions"] == 3
        [drift] = pw.reconcile(acme, users=lambda: 4)
        assert (drift.drift, drift.repaired) == (-1, True)
        assert [entry.delta for entry in pw.ledger(acme, "users")] == [-1, 2, 3]


async def test_after_a_killed_sidecar_the_same_keys_are_repeated_and_nothing_is_done_twice(
    sidecar: SidecarFactory,
) -> None:
    one = sidecar(
        quotas='default_tier = "free"\n[tiers.free.quotas]\nusers = "unlimited"\n',
        env={"PARTYWALL_PORT": str(fixed_port())},
    )
    async with Partywall(one.url, one.admin_token, timeout=2.0) as pw:
        begun = asyncio.Event()

        async def consume(n: int) -> None:
            async def answered() -> bool:
                return bool(await pw.consume("acme", users=1, idempotency_key=f"k{n}"))

            await until(answered, SidecarUnavailable, seconds=60)
            begun.set()

        consumes = [asyncio.create_task(consume(n)) for n in range(200)]
        await begun.wait()
        one.kill()
        one.start()
        await asyncio.gather(*consumes)
        assert (await pw.quota("acme", "users")).used == 200
        assert len([entry async for entry in pw.ledger("acme")]) == 200
