"""Tenants by their own domains: what is asked of the sidecar, how often, and what it costs."""

import asyncio
from collections.abc import Awaitable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from partywall.domains import AT_ONCE, KNOWN_FOR, REMEMBERED, RETRY_AFTER, UNKNOWN_FOR
from partywall.errors import ConfigurationError, SidecarUnavailable
from partywall.tenants import FromDomain
from tests.unit.sdk.scopes import scope, scope_of

ACME = "shop.acme.example"


class Register:
    """A sidecar's register of domains, that counts what it is asked and can be held up or down."""

    def __init__(self) -> None:
        self.domains = {ACME: "acme"}
        self.asked: list[str] = []
        self.up = True
        self.open = asyncio.Event()
        self.open.set()
        self.begun = asyncio.Semaphore(0)
        self.under_way = self.most = 0

    async def find(self, domain: str) -> str | None:
        self.asked.append(domain)
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        self.begun.release()
        try:
            await self.open.wait()
        finally:
            self.under_way -= 1
        if not self.up:
            raise SidecarUnavailable("not reachable")
        return self.domains.get(domain)


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def register() -> Register:
    return Register()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def resolve(register: Register, clock: Clock) -> FromDomain:
    resolver = FromDomain(ignore=["example.com", ".internal.example."], clock=clock)
    resolver.use(register.find)
    return resolver


def later(answer: str | Awaitable[str | None] | None) -> Awaitable[str | None]:
    assert answer is not None
    assert not isinstance(answer, str)
    return answer


async def test_a_domain_is_looked_up_once_and_then_answered_at_once(
    resolve: FromDomain, register: Register
) -> None:
    assert await later(resolve(scope(host=ACME))) == "acme"
    for host in (ACME, ACME.upper(), f"{ACME}.", f"{ACME}:443"):
        assert resolve(scope(host=host)) == "acme"
    assert register.asked == [ACME]


async def test_it_is_looked_up_again_when_the_answer_is_old(
    resolve: FromDomain, register: Register, clock: Clock
) -> None:
    await later(resolve(scope(host=ACME)))
    clock.now += KNOWN_FOR - 0.1
    assert resolve(scope(host=ACME)) == "acme"
    clock.now += 0.1
    register.domains[ACME] = "globex"
    assert await later(resolve(scope(host=ACME))) == "globex"
    assert resolve(scope(host=ACME)) == "globex"


async def test_a_domain_registered_now_works_seconds_later(
    resolve: FromDomain, register: Register, clock: Clock
) -> None:
    assert await later(resolve(scope(host="new.example"))) is None
    register.domains["new.example"] = "initech"
    assert resolve(scope(host="new.example")) is None
    clock.now += UNKNOWN_FOR
    assert await later(resolve(scope(host="new.example"))) == "initech"
    assert resolve(scope(host="new.example")) == "initech"
    assert register.asked == ["new.example"] * 2


async def test_a_domain_taken_away_names_nobody_once_the_answer_is_old(
    resolve: FromDomain, register: Register, clock: Clock
) -> None:
    await later(resolve(scope(host=ACME)))
    del register.domains[ACME]
    clock.now += KNOWN_FOR
    assert await later(resolve(scope(host=ACME))) is None
    assert resolve(scope(host=ACME)) is None


async def test_many_who_ask_for_one_host_at_once_share_one_look_up(
    resolve: FromDomain, register: Register
) -> None:
    answers = await asyncio.gather(*(later(resolve(scope(host=ACME))) for _ in range(100)))
    assert answers == ["acme"] * 100
    assert register.asked == [ACME]


async def test_whoever_asked_first_may_hang_up(resolve: FromDomain, register: Register) -> None:
    register.open.clear()
    first = asyncio.ensure_future(later(resolve(scope(host=ACME))))
    second = asyncio.ensure_future(later(resolve(scope(host=ACME))))
    await register.begun.acquire()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    register.open.set()
    assert await second == "acme"
    assert register.asked == [ACME]


async def test_in_an_outage_an_old_answer_goes_on_being_used(
    resolve: FromDomain, register: Register, clock: Clock
) -> None:
    await later(resolve(scope(host=ACME)))
    await later(resolve(scope(host="nobody.example")))
    register.up = False
    clock.now += 10 * KNOWN_FOR
    assert await later(resolve(scope(host=ACME))) == "acme"
    assert await later(resolve(scope(host="nobody.example"))) is None
    # And not every request tries the sidecar.
    asked = len(register.asked)
    assert resolve(scope(host=ACME)) == "acme"
    assert len(register.asked) == asked
    clock.now += RETRY_AFTER
    register.up = True
    register.domains[ACME] = "globex"
    assert await later(resolve(scope(host=ACME))) == "globex"


async def test_in_an_outage_a_host_never_seen_is_an_error_and_not_nobodys(
    resolve: FromDomain, register: Register
) -> None:
    register.up = False
    waiting = [later(resolve(scope(host=ACME))) for _ in range(3)]
    for answer in await asyncio.gather(*waiting, return_exceptions=True):
        assert isinstance(answer, SidecarUnavailable)
    register.up = True
    assert await later(resolve(scope(host=ACME))) == "acme"


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "10.0.0.1",
        "10.0.0.1:8000",
        "[::1]:8000",
        "a..example",
        "-a.example",
        "a-.example",
        "a_b.example",
        "a b.example",
        "a.example/x",
        "a.example\n",
        "é.example",
        "%61.example",
        "a" * 64 + ".example",
        "a." * 127 + "a",
        "example.com",
        "www.example.com",
        "a.b.EXAMPLE.com:80",
        "x.internal.example",
    ],
)
def test_what_is_no_domain_or_is_ones_own_is_never_looked_up(
    resolve: FromDomain, register: Register, host: str
) -> None:
    assert resolve(scope(host=host)) is None
    assert resolve(scope()) is None
    assert register.asked == []


def test_what_only_ends_like_ones_own_domain_is_not_ignored(resolve: FromDomain) -> None:
    waiting = resolve(scope(host="myexample.com"))
    assert asyncio.iscoroutine(waiting)
    waiting.close()


@given(st.binary(max_size=60))
def test_no_bytes_in_a_host_break_it(value: bytes) -> None:
    answer = FromDomain()(scope_of((b"host", value)))
    if asyncio.iscoroutine(answer):
        answer.close()
    else:
        assert answer is None


async def test_a_flood_of_made_up_hosts_is_looked_up_a_few_at_a_time(
    resolve: FromDomain, register: Register
) -> None:
    await later(resolve(scope(host=ACME)))
    hosts = [f"h{number}.example" for number in range(200)]
    answers = await asyncio.gather(*(later(resolve(scope(host=host))) for host in hosts * 2))
    assert set(answers) == {None}
    assert register.most <= AT_ONCE
    assert sorted(register.asked[1:]) == sorted(hosts)


async def test_a_flood_of_made_up_hosts_neither_grows_memory_nor_pushes_tenants_out(
    clock: Clock,
) -> None:
    asked = 0

    async def find(domain: str) -> str | None:
        nonlocal asked
        asked += 1
        return "acme" if domain == ACME else None

    resolve = FromDomain(clock=clock)
    resolve.use(find)
    await later(resolve(scope(host=ACME)))
    for number in range(REMEMBERED + 100):
        await later(resolve(scope(host=f"h{number}.example")))
    assert resolve(scope(host=ACME)) == "acme"
    assert resolve(scope(host=f"h{REMEMBERED}.example")) is None
    before = asked
    await later(resolve(scope(host="h0.example")))
    assert asked == before + 1


def test_one_resolver_serves_several_event_loops(register: Register, clock: Clock) -> None:
    """As test clients make them: one that is abandoned in the middle holds up no other."""
    resolve = FromDomain(clock=clock)
    resolve.use(register.find)
    register.open = asyncio.Event()

    async def give_up() -> None:
        hosts = [ACME, *(f"h{number}.example" for number in range(3 * AT_ONCE))]
        tasks = [asyncio.ensure_future(later(resolve(scope(host=host)))) for host in hosts]
        for _ in range(AT_ONCE):
            await register.begun.acquire()
        assert not any(task.done() for task in tasks)

    async def ask() -> str | None:
        register.open = asyncio.Event()
        register.open.set()
        return await later(resolve(scope(host=ACME)))

    asyncio.run(give_up())
    assert asyncio.run(ask()) == "acme"


async def test_without_a_sidecar_to_ask_it_says_what_to_do() -> None:
    with pytest.raises(ConfigurationError, match="give it to PartywallMiddleware"):
        await later(FromDomain()(scope(host=ACME)))
