"""`current_tenant()` is the running request's, wherever the request's work goes."""

import asyncio
import random
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import anyio.to_thread
import pytest

from partywall.context import (
    Tenant,
    current_tenant,
    enter,
    in_tenant_context,
    leave,
    running_as,
)
from partywall.errors import ConfigurationError, NoTenant

ACME, GLOBEX = Tenant("acme", "pro", ("exports",)), Tenant("globex", "free")


@pytest.fixture(autouse=True)
def _nothing_leaks() -> Iterator[None]:
    yield
    assert current_tenant(default=None) is None


def test_a_tenant_reads_as_its_id_and_cannot_be_changed() -> None:
    assert (str(ACME), ACME.id, ACME.tier, ACME.features) == ("acme", "acme", "pro", ("exports",))
    assert {ACME, Tenant("acme", "pro", ("exports",))} == {ACME}
    with pytest.raises(AttributeError):
        ACME.id = "globex"  # type: ignore[misc]  # that it cannot be is what is tested


def test_outside_a_request_it_raises_and_says_what_to_do() -> None:
    with pytest.raises(NoTenant, match="running_as"):
        current_tenant()
    with pytest.raises(LookupError):
        current_tenant()


def test_outside_a_request_a_default_is_the_answer() -> None:
    assert current_tenant(default=None) is None
    assert current_tenant("nobody") == "nobody"


def test_a_block_runs_as_a_tenant_and_what_was_before_comes_back() -> None:
    with running_as(ACME) as tenant:
        assert tenant is current_tenant() is ACME
        with running_as(GLOBEX):
            assert current_tenant() is GLOBEX
        assert current_tenant() is ACME
        assert current_tenant(default=None) is ACME


def test_an_exception_in_the_block_restores_too_and_passes() -> None:
    with pytest.raises(RuntimeError, match="in the app"), running_as(ACME):
        raise RuntimeError("in the app")
    assert current_tenant(default=None) is None


def test_enter_and_leave_do_the_same_without_a_block() -> None:
    token = enter(ACME)
    assert current_tenant() is ACME
    leave(token)
    assert current_tenant(default=None) is None


async def test_a_thousand_requests_of_fifty_tenants_each_see_their_own() -> None:
    """Awaits, child tasks, both kinds of copying threads and both kinds of bare ones in between."""
    order = random.Random(7)
    pauses = [[order.randrange(4) for _ in range(6)] for _ in range(1000)]
    wrong: list[tuple[str, str]] = []

    def look(expected: str) -> None:
        seen = str(current_tenant(default="nobody"))
        if seen != expected:
            wrong.append((expected, seen))

    async def child(expected: str, pause: int) -> None:
        for _ in range(pause):
            await asyncio.sleep(0)
        look(expected)

    async def request(number: int, pool: ThreadPoolExecutor) -> None:
        name = f"tenant-{number % 50}"
        first, *rest = pauses[number]
        with running_as(Tenant(name)):
            children = [asyncio.create_task(child(name, pause)) for pause in rest]
            await child(name, first)
            match number % 4:
                case 0:
                    await asyncio.to_thread(look, name)
                case 1:
                    await anyio.to_thread.run_sync(look, name)
                case 2:
                    loop = asyncio.get_running_loop()
                    await loop.run_in_executor(pool, in_tenant_context(look), name)
                case _:
                    thread = threading.Thread(target=in_tenant_context(look), args=(name,))
                    thread.start()
                    await asyncio.to_thread(thread.join)
            look(name)
            await asyncio.gather(*children)
            look(name)
        if current_tenant(default=None) is not None:
            wrong.append(("nobody", str(current_tenant())))

    with ThreadPoolExecutor(4) as pool:
        await asyncio.gather(*(request(number, pool) for number in range(1000)))
        # The pool's own threads were lent, not marked.
        left = list(pool.map(lambda _: current_tenant(default=None), range(8)))
    assert wrong == []
    assert left == [None] * 8


def test_a_bare_thread_knows_no_tenant_unless_its_function_was_wrapped() -> None:
    seen: list[object] = []

    def look() -> None:
        seen.append(current_tenant(default=None))

    with running_as(ACME):
        for target in (look, in_tenant_context(look)):
            thread = threading.Thread(target=target)
            thread.start()
            thread.join()
    assert seen == [None, ACME]


def test_a_wrapped_function_runs_in_several_threads_at_once() -> None:
    together = threading.Barrier(4)

    def look(number: int) -> tuple[int, Tenant]:
        together.wait(timeout=30)
        return number, current_tenant()

    with ThreadPoolExecutor(4) as pool:
        with running_as(ACME):
            wrapped = in_tenant_context(look)
        assert list(pool.map(wrapped, range(4))) == [(number, ACME) for number in range(4)]


def test_what_a_wrapped_function_sets_stays_in_its_own_run() -> None:
    def change() -> Tenant:
        before = current_tenant()
        enter(GLOBEX)
        return before

    with running_as(ACME):
        wrapped = in_tenant_context(change)
        assert (wrapped(), wrapped()) == (ACME, ACME)
        assert current_tenant() is ACME


def test_a_wrapped_function_keeps_its_name_arguments_and_exceptions() -> None:
    def add(one: int, *, two: int) -> int:
        """Adds."""
        if two < 0:
            raise ValueError("below zero")
        return one + two

    wrapped = in_tenant_context(add)
    assert (wrapped.__name__, wrapped.__doc__, wrapped(1, two=2)) == ("add", "Adds.", 3)
    with pytest.raises(ValueError, match="below zero"):
        wrapped(1, two=-1)


def test_a_coroutine_function_is_not_wrapped_as_that_would_do_nothing() -> None:
    async def work() -> None: ...

    with pytest.raises(ConfigurationError, match="coroutine function"):
        in_tenant_context(work)
