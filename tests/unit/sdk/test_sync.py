"""The synchronous face: the same calls, from any thread, before and after a fork."""

import asyncio
import contextvars
import inspect
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from partywall.client import Partywall
from partywall.errors import ConfigurationError, InvalidRequest, SidecarUnavailable, UnknownTenant
from partywall.sync import SyncPartywall
from partywall.transport import substitute

NAMES = {"aclose": "close"}
"""What is called otherwise; every other method has the same name."""

GIVEN = {
    "enqueue": "SyncJob",
    "job": "SyncJob",
    "ledger": "Iterator[",
    "list_jobs": "Iterator[",
    "reserve": "SyncReservation",
}
"""What gives something of this face's own; everything else gives the same."""


def public_methods(kind: type) -> dict[str, Callable[..., Any]]:
    return {
        name: method
        for name, method in inspect.getmembers(kind, inspect.isfunction)
        if not name.startswith("_")
    }


def test_every_async_method_has_its_synchronous_face() -> None:
    asynchronous, synchronous = public_methods(Partywall), public_methods(SyncPartywall)
    assert {NAMES.get(name, name) for name in asynchronous} == set(synchronous)
    for name, method in asynchronous.items():
        face = synchronous[NAMES.get(name, name)]
        assert not inspect.iscoroutinefunction(face)
        expected = inspect.signature(method)
        if name in GIVEN:
            assert GIVEN[name] in str(inspect.signature(face).return_annotation)
            returned = inspect.signature(face).return_annotation
            expected = expected.replace(return_annotation=returned)
        assert inspect.signature(face) == expected, name
    assert inspect.signature(SyncPartywall) == inspect.signature(Partywall)


def permit(request: httpx.Request) -> httpx.Response:
    """Admits everything, and knows the tenant of every domain."""
    if request.url.path == "/v1/tenants":
        tenant = {
            "tenant": request.url.params["domain"].split(".")[0],
            "name": "for people",
            "tier": "free",
            "status": "active",
            "domains": [],
            "features": [],
            "created_at": "2030-01-31T12:00:00Z",
            "updated_at": "2030-01-31T12:00:00Z",
        }
        return httpx.Response(200, json={"tenants": [tenant], "next_cursor": None})
    asks = json.loads(request.content).get("asks", [])
    return httpx.Response(200, json={"permits": [{"allowed": True} for _ in asks]})


def made(answer: Callable[[httpx.Request], Any] = permit, **options: Any) -> SyncPartywall:
    return SyncPartywall("http://there", "t", transport=httpx.MockTransport(answer), **options)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "partywall"]


def test_it_answers_without_an_event_loop_and_ends_its_thread() -> None:
    before = own_threads()
    with made() as pw:
        assert pw.check("acme")
        assert pw.tenant_of_domain("acme.example") == "acme"
        assert len(own_threads()) == len(before) + 1
    assert own_threads() == before


def test_its_thread_starts_at_the_first_use_and_keeps_no_process_alive() -> None:
    before = own_threads()
    pw = made()
    assert own_threads() == before
    pw.check("acme")
    [thread] = [thread for thread in own_threads() if thread not in before]
    assert thread.daemon
    pw.close()
    pw.close()
    assert pw.check("acme")  # it opens again
    pw.close()


def test_errors_come_through_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/permits":
            permit = {"allowed": False, "reason": "unknown-tenant"}
            return httpx.Response(200, json={"permits": [permit]})
        raise httpx.ReadTimeout("late")

    with made(unknown) as pw:
        with pytest.raises(UnknownTenant):
            pw.check("acme")
        with pytest.raises(InvalidRequest):
            pw.check("a b")
        with pytest.raises(SidecarUnavailable) as raised:
            pw.check_many([("acme",)])
        assert isinstance(raised.value.__cause__, httpx.ReadTimeout)
    monkeypatch.delenv("PARTYWALL_TOKEN", raising=False)
    before = own_threads()
    with pytest.raises(ConfigurationError, match="there is no token"), SyncPartywall():
        pass
    assert own_threads() == before


def test_many_threads_share_one_client() -> None:
    before = own_threads()
    with made() as pw, ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda n: pw.tenant_of_domain(f"t{n}.example"), range(200)))
        assert len(own_threads()) == len(before) + 1
    assert answers == [f"t{n}" for n in range(200)]


def test_close_waits_for_the_calls_under_way() -> None:
    asked, go_on = threading.Event(), threading.Event()

    async def slow(_: httpx.Request) -> httpx.Response:
        asked.set()
        await asyncio.to_thread(go_on.wait)
        return httpx.Response(200, json={"permits": [{"allowed": True}]})

    pw = made(slow, deadline=60)
    with ThreadPoolExecutor(2) as pool:
        answer = pool.submit(pw.check, "acme")
        asked.wait()
        closed = pool.submit(pw.close)
        go_on.set()
        assert answer.result().allowed
        closed.result()
    assert own_threads() == []


def test_a_call_that_its_thread_gives_up_ends() -> None:
    ended = threading.Event()
    caller = threading.main_thread().ident or 0

    async def never(_: httpx.Request) -> httpx.Response:
        while sys._current_frames()[caller].f_code.co_name != "wait":  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        signal.pthread_kill(caller, signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    with made(never) as pw:
        with pytest.raises(KeyboardInterrupt):
            pw.get_tenant("acme")
        assert ended.wait(30)


async def test_it_may_be_used_where_a_loop_runs_but_not_on_its_own() -> None:
    refused: list[str] = []

    def nested(_: httpx.Request) -> httpx.Response:
        for use in (lambda: pw.check("other"), pw.close):
            with pytest.raises(RuntimeError, match="cannot be used on the event loop") as raised:
                use()
            refused.append(str(raised.value))
        return httpx.Response(200, json={"permits": [{"allowed": True}]})

    pw = made(nested)
    try:
        assert not pw.check("acme").degraded
    finally:
        pw.close()
    assert len(refused) == 2


def test_a_call_runs_in_its_callers_context() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="none")
    seen: list[str] = []

    def look(request: httpx.Request) -> httpx.Response:
        seen.append(variable.get())
        return permit(request)

    with made(look) as pw:
        token = variable.set("the caller's")
        pw.tenant_of_domain("a.example")
        variable.reset(token)
        pw.tenant_of_domain("a.example")
    assert seen == ["the caller's", "none"]


def test_a_substitute_is_heeded() -> None:
    pw = SyncPartywall()
    with substitute(httpx.MockTransport(permit)):
        assert pw.tenant_of_domain("acme.example") == "acme"
        pw.close()


def _in_child(pw: SyncPartywall, pipe: Any) -> None:
    pipe.send((pw.tenant_of_domain("child.example"), os.getpid()))
    pw.close()
    pipe.close()


@pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork:DeprecationWarning")
def test_the_child_of_a_fork_has_a_thread_of_its_own() -> None:
    context = multiprocessing.get_context("fork")
    with made() as pw:
        assert pw.tenant_of_domain("parent.example") == "parent"
        theirs, ours = context.Pipe(duplex=True)
        # Held, as another thread might hold it at the moment of the fork.
        with pw._lock:
            child = context.Process(target=_in_child, args=(pw, ours))
            child.start()
        ours.close()
        tenant, pid = theirs.recv()
        child.join()
        assert (tenant, child.exitcode) == ("child", 0)
        assert pid != os.getpid()
        assert pw.tenant_of_domain("parent.example") == "parent"


AT_EXIT = """
import json, pathlib, sys
import httpx
from partywall.sync import SyncPartywall

out = pathlib.Path(sys.argv[1])

def answer(request):
    asked = json.loads(request.content)
    with out.open("a") as file:
        for back in asked.get("returns", []):
            print("returned", back["units"], file=file)
    permits = []
    for ask in asked.get("asks", []):
        granted = ask.get("need", 1) + ask.get("ahead", 0)
        window = {"quota": 1000, "window": 60, "remaining": 900, "reset_after": 60.0}
        permits.append({"allowed": True, "granted": granted, "seconds": 60.0,
                        "leased": "lease" in ask, "windows": [window]})
        with out.open("a") as file:
            print("granted", granted, file=file)
    return httpx.Response(200, json={"permits": permits})

pw = SyncPartywall("http://there", "t", transport=httpx.MockTransport(answer))
for _ in range(3):
    pw.check("acme")
"""


def test_at_the_end_of_the_interpreter_unspent_permits_go_back(tmp_path: Path) -> None:
    out = tmp_path / "said"
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", AT_EXIT, str(out)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    said = [line.split() for line in out.read_text().splitlines()]
    units = {word: sum(int(n) for it, n in said if it == word) for word in ("granted", "returned")}
    assert units["granted"] > 3
    assert units["returned"] == units["granted"] - 3
