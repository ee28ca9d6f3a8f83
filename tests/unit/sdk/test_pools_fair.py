"""Turns at the slots of a pool: never over, never idle, fair, and nothing lost by giving up."""

import asyncio
import random
from collections import Counter, defaultdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall.pools.fair import FairSlots
from tests.support.virtual_time import run_virtually


class Client:
    """One checkout: waits for a slot, then keeps it until it is told to let go."""

    def __init__(self, street: "Street", tenant: str) -> None:
        self.street = street
        self.tenant = tenant
        self.has = False
        self.sent_away = False
        self.done = asyncio.Event()
        self.task = asyncio.create_task(self._run())

    async def _run(self) -> None:
        street = self.street
        if not await street.slots.acquire(self.tenant, street.caps[self.tenant]):
            self.sent_away = True
            return
        self.has = True
        street.granted(self)
        try:
            await self.done.wait()
        finally:
            self.has = False
            street.slots.release(self.tenant)


class Street:
    """Clients of several tenants, and what must be true of them after each step."""

    def __init__(self, size: int, caps: dict[str, int]) -> None:
        self.slots = FairSlots(size)
        self.caps = caps
        self.clients: list[Client] = []
        # Turns that others had while a tenant might have had one itself.
        self.passed_by: defaultdict[str, Counter[str]] = defaultdict(Counter)

    def come(self, tenant: str) -> Client:
        client = Client(self, tenant)
        self.clients.append(client)
        return client

    def having(self, tenant: str | None = None) -> list[Client]:
        return [one for one in self.clients if one.has and tenant in (None, one.tenant)]

    def waiting(self, tenant: str | None = None) -> list[Client]:
        return [
            one
            for one in self.clients
            if not (one.has or one.task.done()) and tenant in (None, one.tenant)
        ]

    def may_have_one(self, tenant: str) -> bool:
        return bool(self.waiting(tenant)) and len(self.having(tenant)) < self.caps[tenant]

    def granted(self, client: Client) -> None:
        first, *_ = [client, *self.waiting(client.tenant)]
        assert self.clients.index(client) <= self.clients.index(first), "not in order of arrival"
        self.passed_by.pop(client.tenant, None)
        for tenant in self.caps:
            if tenant != client.tenant and self.may_have_one(tenant):
                self.passed_by[tenant][client.tenant] += 1
                assert self.passed_by[tenant][client.tenant] <= 1, f"{tenant} was passed by twice"

    async def settle(self) -> None:
        for _ in range(4):
            await asyncio.sleep(0)
        slots = self.slots
        assert slots.in_use == len(self.having()) <= slots.size
        assert slots.waiting == len(self.waiting())
        for tenant, cap in self.caps.items():
            assert len(self.having(tenant)) <= cap
            assert slots.use_of(tenant) == (len(self.having(tenant)), len(self.waiting(tenant)))
            if not self.may_have_one(tenant):
                self.passed_by.pop(tenant, None)
            elif slots.in_use < slots.size:
                raise AssertionError(f"a slot is free, and {tenant} waits for one")
        assert sorted(slots.tenants()) == sorted(
            {one.tenant for one in [*self.having(), *self.waiting()]}
        )

    async def leave(self) -> None:
        for client in self.clients:
            client.task.cancel()
        ends = await asyncio.gather(*(one.task for one in self.clients), return_exceptions=True)
        assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}, ends
        await self.settle()
        await asyncio.wait_for(self.slots.unused(), 5)


TENANTS = ("hog", "a", "b", "c")
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.sampled_from(TENANTS)),
        st.tuples(st.just("crowd"), st.sampled_from(TENANTS)),
        st.tuples(st.sampled_from(["finish", "give up", "both"]), st.integers(0, 1_000)),
        st.tuples(st.just("send away"), st.sampled_from(TENANTS)),
    ),
    max_size=80,
)


@given(
    size=st.integers(1, 5),
    caps=st.fixed_dictionaries({tenant: st.integers(1, 6) for tenant in TENANTS}),
    steps=STEPS,
)
def test_whatever_comes_goes_and_gives_up_the_slots_are_full_fair_and_never_over(
    size: int, caps: dict[str, int], steps: list[tuple[str, str | int]]
) -> None:
    asyncio.run(play(size, caps, steps))


async def play(size: int, caps: dict[str, int], steps: list[tuple[str, str | int]]) -> None:
    street = Street(size, caps)
    for step, about in steps:
        having, waiting = street.having(), street.waiting()
        if isinstance(about, str):
            if step == "send away":
                street.slots.send_away(about)
                await street.settle()
                assert not street.waiting(about)
            else:
                for _ in range(8 if step == "crowd" else 1):
                    street.come(about)
        else:
            # Both in one turn of the loop: the slot is on its way to one who is giving up.
            if having and step in ("finish", "both"):
                having[about % len(having)].done.set()
            if waiting and step in ("give up", "both"):
                waiting[about % len(waiting)].task.cancel()
        await street.settle()
    await street.leave()


@given(size=st.integers(1, 4), caps=st.lists(st.integers(1, 4), min_size=2, max_size=5))
def test_cancelled_in_the_very_turn_of_getting_a_slot_it_goes_to_the_next(
    size: int, caps: list[int]
) -> None:
    async def main() -> None:
        street = Street(size, {f"t{number}": cap for number, cap in enumerate(caps)})
        for tenant in list(street.caps) * 3:
            street.come(tenant)
        await street.settle()
        for _ in range(len(street.clients)):
            for client in street.having()[:1]:
                client.done.set()
            # The slot is granted within this turn; its new owner is cancelled before it wakes.
            await asyncio.sleep(0)
            for client in street.waiting()[:1]:
                client.task.cancel()
            await street.settle()
        await street.leave()

    asyncio.run(main())


@pytest.mark.parametrize("cap", [2, 3], ids=["at its cap", "below its cap"])
async def test_who_comes_seldom_has_the_very_next_turn_before_a_thousand_who_wait(cap: int) -> None:
    street = Street(2, {"hog": cap, "small": 1})
    for _ in range(1_002):
        street.come("hog")
    await street.settle()
    for _ in range(3):
        seldom = street.come("small")
        await street.settle()
        assert (len(street.having("hog")), seldom.has) == (2, False)
        await one_leaves(street, "hog")
        assert seldom.has
        await one_leaves(street, "small")
        await one_leaves(street, "hog")
    await street.leave()


async def one_leaves(street: Street, tenant: str) -> None:
    street.having(tenant)[0].done.set()
    await street.settle()


async def test_who_had_a_turn_lets_each_other_have_one_first() -> None:
    street = Street(1, dict.fromkeys(TENANTS, 1))
    for tenant in TENANTS:
        for _ in range(3):
            street.come(tenant)
    turns = []
    for _ in range(12):
        await street.settle()
        (client,) = street.having()
        turns.append(client.tenant)
        client.done.set()
    assert turns == list(TENANTS) * 3
    await street.leave()


async def test_a_tenant_at_its_cap_holds_up_nobody() -> None:
    street = Street(3, {"hog": 1, "a": 2})
    for tenant in ("hog", "hog", "hog", "a", "a"):
        street.come(tenant)
    await street.settle()
    assert (len(street.having("hog")), len(street.having("a"))) == (1, 2)
    await street.leave()


async def test_a_cap_that_grows_with_a_checkout_holds_for_those_that_wait() -> None:
    street = Street(3, {"a": 1})
    street.come("a")
    street.come("a")
    await street.settle()
    assert len(street.having()) == 1
    street.caps["a"] = 3
    street.come("a")
    await street.settle()
    assert len(street.having()) == 3
    await street.leave()


async def test_sent_away_is_no_turn_and_leaves_the_others_alone() -> None:
    street = Street(1, {"a": 1, "b": 1})
    holder, waiter, other = (street.come(tenant) for tenant in ("a", "a", "b"))
    await street.settle()
    street.slots.send_away("a")
    street.slots.send_away("nobody")
    await street.settle()
    assert (holder.has, waiter.sent_away, waiter.has, other.task.done()) == (
        True,
        True,
        False,
        False,
    )
    street.slots.send_all_away()
    await street.settle()
    assert other.sent_away
    await street.leave()


@pytest.mark.parametrize("seed", range(3))
def test_under_overload_all_who_want_more_than_their_share_get_the_same(seed: int) -> None:
    """Hogs with a hundred clients each, and a small tenant: equal turns, and no wait for the small.

    In virtual time, with queries of random length.
    """
    chance = random.Random(seed)
    turns: Counter[str] = Counter()
    waits: list[float] = []

    async def work(slots: FairSlots, tenant: str) -> None:
        while True:
            assert await slots.acquire(tenant, 4)
            turns[tenant] += 1
            await asyncio.sleep(chance.uniform(0.001, 0.1))
            slots.release(tenant)

    async def visit(slots: FairSlots) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await asyncio.sleep(chance.uniform(0.1, 1))
            came = loop.time()
            assert await slots.acquire("small", 4)
            waits.append(loop.time() - came)
            slots.release("small")

    async def main() -> None:
        slots = FairSlots(4)
        tasks = [asyncio.create_task(work(slots, f"hog{n}")) for n in range(3) for _ in range(100)]
        tasks.append(asyncio.create_task(visit(slots)))
        await asyncio.sleep(60)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    run_virtually(main())
    # The first of them had all four slots before the others came.
    assert max(turns.values()) - min(turns.values()) <= 4 + 1, turns
    assert len(waits) > 50
    # The next slot to come free, of four queries of 0.1 s at most; hogs may be before it once each.
    assert max(waits) <= 0.1, max(waits)


async def test_of_tenants_that_have_gone_nothing_is_kept() -> None:
    slots = FairSlots(2)
    for number in range(1_000):
        assert await slots.acquire(f"t{number}", 1)
        slots.release(f"t{number}")
    kept = [slots._tenants, slots._served, slots._line, slots._next_line]
    assert not any(kept)
