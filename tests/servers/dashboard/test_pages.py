"""The pages about all tenants: overview, tenants, policy, audit; and what every page is like."""

import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace

import pytest

from partywall_service.engine.base import StoreError
from partywall_service.ledger.errors import LedgerUnavailable
from partywall_service.usage.pulse import Pulse
from partywall_service.usage.verdict import Neighbour
from partywall_workers.queue import FairQueue
from tests.servers.dashboard.conftest import HOME, Browser

ALL = ("", "/tenants", "/tenants/acme", "/tenants/acme/usage", "/policy", "/audit", "/nothing")
HOSTILE = "<script>alert(1)</script>\"'&{{7*7}}"


def neighbour(tenant: str, verdict: str, reason: str, share: float = 0.5) -> Neighbour:
    return Neighbour(tenant, "free", 1000, 10, 0, 0, share, 0.1, "requests", verdict, reason,
                     share, 0.0, 0.0)  # type: ignore[arg-type] # fmt: skip # a verdict of the test's


def giving(answer: object) -> Callable[..., Awaitable[object]]:
    async def give(*_: object, **__: object) -> object:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return give


async def test_every_page_forbids_what_it_does_not_need(admin: Browser) -> None:
    await admin.parts.ledger.put_tenant("acme", tier="free", name=HOSTILE, actor=HOSTILE)
    for path in ALL:
        answer = await admin.get(path)
        headers = answer.headers
        assert "default-src 'none'" in headers["content-security-policy"], path
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-frame-options"] == "DENY"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "same-origin"
        assert headers["cache-control"] == "no-store"


async def test_every_page_stands_by_itself_and_shows_text_as_text(admin: Browser) -> None:
    await admin.parts.ledger.put_tenant("acme", tier="free", name=HOSTILE, actor=HOSTILE)
    await admin.parts.ledger.put_override(
        "acme", "limits", "requests", "5/minute", expires_at=None, reason=HOSTILE, author=HOSTILE
    )
    for path in ALL:
        text = (await admin.get(path)).text
        for banned in ("<script", "style=", " on", "javascript:", "//"):
            found = [
                tag
                for tag in re.findall(r"<[a-z][^<>]*>", text)
                if banned in re.sub(r'="[^"]*"', "=" if banned == " on" else r"\g<0>", tag)
            ]
            assert not found, (path, found)
        shown = re.findall(r"alert\(1\)&lt;/script&gt;[^ ]*?(?=7|49)(.{3})", text)
        assert set(shown) <= {"7*7"}, path


async def test_static_files_may_be_kept_for_ever_and_need_no_session(visitor: Browser) -> None:
    page = await visitor.get("/sign-in")
    for address in re.findall(r'(?:href|src)="(/dashboard/static/[^"]+)"', page.text):
        answer = await visitor.http.get(address)
        assert answer.status_code == 200
        assert "immutable" in answer.headers["cache-control"]
    assert (await visitor.get("/static/nothing.css")).status_code == 404


async def test_no_page_is_in_the_api_documentation(admin: Browser) -> None:
    document = (await admin.http.get("/openapi.json")).json()
    assert not [path for path in document["paths"] if path.startswith(HOME)]


async def test_what_is_no_page_is_told_by_one(admin: Browser) -> None:
    for path in ("/nothing", "/tenants/a%20b", "/tenants/never", "/tenants/acme/nothing"):
        answer = await admin.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
    assert (await admin.http.delete(f"{HOME}/policy")).status_code == 404


async def test_a_slash_too_many_leads_on(admin: Browser) -> None:
    for path, to in (("/", ""), ("/tenants/", "/tenants"), ("/tenants/acme//", "/tenants/acme")):
        answer = await admin.http.get(HOME + path, follow_redirects=False)
        assert (answer.status_code, answer.headers["location"]) == (303, HOME + to)


async def test_the_overview_tells_of_a_policy_that_was_refused(admin: Browser) -> None:
    assert "quotas.toml was refused" not in (await admin.get()).text
    admin.parts.policy.refuse(["tiers: expected a table; got <1>"])
    assert "quotas.toml was refused" in (await admin.get()).text


async def test_the_overview_shows_who_is_noisy_and_who_suffers(
    admin: Browser, usage: SimpleNamespace
) -> None:
    usage.neighbours = SimpleNamespace(
        snapshot=giving([
            neighbour("loud", "noisy", "It took too much."),
            neighbour("poor", "victim", "It had to wait."),
            neighbour("calm", "normal", "All is well."),
        ])
    )  # fmt: skip
    await usage.pulse.write(Pulse(datetime.now(UTC), 250.0, 500_000, 125_000, 3))
    text = (await admin.get()).text
    for said in ("loud", "It took too much.", "poor", "It had to wait.", "calm", "2,000", "25%"):
        assert said in text
    assert f'href="{HOME}/tenants/loud"' in text


async def test_without_a_snapshot_the_overview_judges_by_itself(
    admin: Browser, usage: SimpleNamespace
) -> None:
    asked = []

    async def judge(window: timedelta) -> list[Neighbour]:
        asked.append(window)
        return [neighbour("loud", "noisy", "It took too much.")]

    usage.neighbours = SimpleNamespace(snapshot=giving([]), judge=judge)
    await usage.pulse.write(Pulse(datetime.now(UTC) - timedelta(hours=1), 250.0, 1, 1, 1))
    assert "It took too much." in (await admin.get()).text
    assert sorted(asked) == [timedelta(minutes=5), timedelta(hours=1)]


async def test_the_overview_is_watched_only_by_who_asks(admin: Browser) -> None:
    assert "refresh" not in (await admin.get()).headers
    assert (await admin.get("", watch="")).headers["refresh"] == "5"


@pytest.mark.parametrize("cause", [LedgerUnavailable("gone"), StoreError("gone")])
async def test_the_overview_says_what_is_degraded(
    admin: Browser, usage: SimpleNamespace, cause: Exception
) -> None:
    usage.neighbours = SimpleNamespace(snapshot=giving(cause))
    usage.pulse = SimpleNamespace(read=giving(cause))
    answer = await admin.get()
    assert answer.status_code == 200
    assert "does not answer now." in answer.text
    assert ("PostgreSQL does not answer." in answer.text) == isinstance(cause, LedgerUnavailable)


async def test_the_overview_shows_the_queues(admin: Browser, jobs_queue: FairQueue) -> None:
    await jobs_queue.enqueue("acme", "send_email")
    text = (await admin.get()).text
    assert "No job waits or runs." not in text
    assert f'href="{HOME}/tenants/acme"' in text


async def test_tenants_are_searched_by_the_beginning_of_id_or_name(admin: Browser) -> None:
    for tenant, name in (("qcme", "Zebra"), ("qcorn", "Oak"), ("zoo", "QCE"), ("q_y", "%50")):
        await admin.parts.ledger.put_tenant(tenant, tier="free", name=name, actor="test")
    for search, expected in {
        "QC": ["qcme", "qcorn", "zoo"],
        "zeb": ["qcme"],
        "%": ["q_y"],
        "_": [],
        "q_": ["q_y"],
        "nobody": [],
    }.items():
        page = await admin.get("/tenants", search=search)
        assert re.findall(rf'href="{HOME}/tenants/([^"?]+)"', page.text) == expected, search


async def test_tenants_are_filtered_and_come_in_pages(admin: Browser) -> None:
    for number in range(60):
        await admin.parts.ledger.put_tenant(
            f"t{number:02}",
            tier="pro" if number % 2 else "free",
            status="suspended" if number < 4 else "active",
            actor="test",
        )
    first = await admin.get("/tenants", search="t")
    assert "t49" in first.text
    assert "t50" not in first.text
    following = re.search(r'href="([^"]*cursor=[^"]*)"', first.text)
    assert following is not None
    second = await admin.http.get(following[1].replace("&amp;", "&"))
    assert "t50" in second.text
    assert "t49" not in second.text
    narrowed = (await admin.get("/tenants", tier="pro", status="suspended")).text
    assert re.findall(r"tenants/(t\d\d)", narrowed) == ["t01", "t03"]


async def test_the_policy_is_shown_tier_by_tier(admin: Browser) -> None:
    text = (await admin.get("/policy")).text
    for said in ("free", "enterprise", "1,000 a minute", "unlimited", "advanced-analytics"):
        assert said in text
    assert "No change of quotas.toml was refused" in text


async def test_a_refused_policy_is_told_with_its_errors_until_another_is_taken(
    admin: Browser,
) -> None:
    holder = admin.parts.policy
    holder.refuse(["quotas.toml: tiers.pro: expected a table; got <1>"])
    text = (await admin.get("/policy")).text
    assert "A change was refused" in text
    assert "expected a table; got &lt;1&gt;" in text
    holder.take(holder.current)
    assert "A change was refused" not in (await admin.get("/policy")).text


async def test_the_audit_log_comes_in_pages_and_by_tenant(admin: Browser) -> None:
    for number in range(55):
        await admin.parts.ledger.put_tenant(f"shop-{number:02}", tier="free", actor="test")
    first = (await admin.get("/audit")).text
    assert "shop-54" in first
    assert "shop-04" not in first
    following = re.search(r'href="([^"]*cursor=[^"]*)"', first)
    assert following is not None
    assert "shop-04" in (await admin.http.get(following[1])).text
    one = (await admin.get("/audit", tenant="shop-04")).text
    assert "shop-04" in one
    assert "shop-54" not in one
    wrong = await admin.get("/audit", tenant="a b")
    assert wrong.status_code == 422
    assert "expected a tenant id" in wrong.text


async def test_a_hosts_token_sees_all_but_the_audit_log(visitor: Browser) -> None:
    host = await visitor.as_("host")
    for path in ("", "/tenants", "/policy"):
        answer = await host.get(path)
        assert answer.status_code == 200
        assert f"{HOME}/audit" not in answer.text
    assert (await host.get("/audit")).status_code == 403
