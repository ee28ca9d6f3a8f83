"""One tenant's page: what it shows, and the forms that change the tenant."""

import re
from datetime import UTC, datetime, timedelta
from types import SimpleNamespace
from uuid import uuid4

import pytest

from partywall_service.engine.base import Check
from partywall_service.quotas.service import Request
from partywall_service.usage.reading import UsagePoint
from partywall_workers.queue import FairQueue
from tests.servers.dashboard.conftest import HOME, Browser


@pytest.fixture
async def acme(admin: Browser) -> str:
    """A tenant of this test alone."""
    tenant = f"acme-{uuid4().hex[:8]}"
    await admin.parts.ledger.put_tenant(tenant, tier="free", name="Acme <Ltd>", actor="test")
    return tenant


def form_of(tenant: str) -> str:
    return f"{HOME}/tenants/{tenant}/overrides"


async def test_the_page_shows_all_there_is(
    admin: Browser, acme: str, jobs_queue: FairQueue
) -> None:
    parts = admin.parts
    limit = parts.policy.current.tiers["free"].limits["requests"]
    await parts.breaker.decide([Check(acme, "requests", limit.rates, 40)])
    await parts.quotas.consume(acme, {"users": 3, "storage": 2**30}, Request("the shop"))
    await jobs_queue.enqueue(acme, "send_email", job_id="welcome-1")
    text = (await admin.get(f"/tenants/{acme}")).text
    for said in (
        "Acme &lt;Ltd&gt;",
        "40 of 100",
        "3 of 5",
        "1 GiB of unlimited",
        "welcome-1",
        "send_email",
        "the shop",
        "tenant.created",
    ):
        assert said in text, said
    assert len(re.findall(r'<img class="chart"[^>]*loading="lazy"[^>]*alt="[^"]+"', text)) == 5


async def test_a_tenant_that_only_the_default_tier_serves_has_a_page(admin: Browser) -> None:
    policy = admin.parts.policy
    policy.current = admin.parts.policy.current.__class__(
        policy.current.tiers, "free", policy.current.resources, policy.current.digest
    )
    answer = await admin.get("/tenants/walk-in")
    assert answer.status_code == 200
    assert "Nobody registered this tenant" in answer.text
    assert "Set an override" not in answer.text


async def test_an_override_is_set_and_shown_and_applies_and_is_in_the_audit_log(
    admin: Browser, acme: str
) -> None:
    page = await admin.get(f"/tenants/{acme}")
    ends = datetime.now(UTC) + timedelta(days=2)
    answer = await admin.send(
        page,
        form_of(acme),
        of="limits:requests",
        value="500/minute",
        expires_at=ends.strftime("%Y-%m-%dT%H:%M"),
        reason="launch day",
    )
    assert answer.history[0].status_code == 303
    assert answer.url.path == f"{HOME}/tenants/{acme}"
    assert "The override is set." in answer.text
    assert "0 of 500" in answer.text
    assert "override.set" in answer.text
    (record,) = await admin.parts.ledger.list_overrides(acme, limit=10)
    assert (record.value, record.reason, record.author) == ("500/minute", "launch day", "admin")
    assert record.expires_at == ends.replace(second=0, microsecond=0)
    assert "The override is set." not in (await admin.get(f"/tenants/{acme}")).text


async def test_values_are_what_the_api_would_have_been_sent(admin: Browser, acme: str) -> None:
    page = await admin.get(f"/tenants/{acme}")
    for of, value in {
        "quotas:users": "7",
        "quotas:storage": "5 GiB",
        "jobs:concurrency": "3",
        "jobs:queue": "42",
        "limits:requests": "-1",
    }.items():
        answer = await admin.send(page, form_of(acme), of=of, value=value, reason="asked for")
        assert answer.status_code == 200, answer.text
    kept = await admin.parts.ledger.list_overrides(acme, limit=10)
    assert {(one.kind, one.name): one.value for one in kept} == {
        ("quotas", "users"): 7,
        ("quotas", "storage"): "5 GiB",
        ("jobs", "concurrency"): 3,
        ("jobs", "queue"): "42",
        ("limits", "requests"): -1,
    }


async def test_what_is_wrong_is_told_beside_each_field_and_nothing_is_changed(
    admin: Browser, acme: str
) -> None:
    page = await admin.get(f"/tenants/{acme}")
    answer = await admin.send(
        page,
        form_of(acme),
        of="limits:requests",
        value='lots"><b>',
        expires_at="2001-01-01T00:00",
        reason=" ",
    )
    assert answer.status_code == 422
    for field, said in {
        "value": "expected a rate",
        "expires_at": "expected an instant from now on",
        "reason": "expected",
    }.items():
        fault = re.search(rf'<p class="error" id="{field}-error">([^<]*)</p>', answer.text)
        assert fault is not None, field
        assert said in fault[1]
        assert re.search(rf'id="{field}"[^>]*aria-describedby="{field}-error', answer.text)
    assert 'value="lots&#34;&gt;&lt;b&gt;"' in answer.text
    assert not await admin.parts.ledger.list_overrides(acme, limit=10)


async def test_an_override_of_what_is_not_there_is_refused(admin: Browser, acme: str) -> None:
    page = await admin.get(f"/tenants/{acme}")
    for of in ("", "limits", "limits:nothing", "quotas:nothing", "jobs:nothing", "x:requests"):
        answer = await admin.send(page, form_of(acme), of=of, value="unlimited", reason="why not")
        assert answer.status_code == 422
        assert 'id="of-error"' in answer.text, of
    assert not await admin.parts.ledger.list_overrides(acme, limit=10)


async def test_an_override_is_ended(admin: Browser, acme: str) -> None:
    await admin.parts.ledger.put_override(
        acme, "quotas", "users", 9, expires_at=None, reason="for now", author="test"
    )
    page = await admin.get(f"/tenants/{acme}")
    assert "0 of 9" in page.text
    answer = await admin.send(page, f"{form_of(acme)}/quotas/users/end")
    assert "The override has ended." in answer.text
    assert "0 of 5" in answer.text
    again = await admin.send(page, f"{form_of(acme)}/quotas/users/end")
    assert again.status_code == 404


async def test_a_tenant_is_suspended_and_activated(visitor: Browser) -> None:
    host = await visitor.as_("host")
    await host.parts.ledger.put_tenant("shop", tier="pro", actor="test")
    page = await host.get("/tenants/shop")
    assert "Set an override" not in page.text
    answer = await host.send(page, f"{HOME}/tenants/shop/suspend")
    assert "The tenant is suspended." in answer.text
    answer = await host.send(answer, f"{HOME}/tenants/shop/activate")
    assert "The tenant is active." in answer.text
    record = await host.parts.ledger.get_tenant("shop")
    assert record is not None
    assert (record.status, record.tier) == ("active", "pro")


async def test_a_host_sets_no_override(visitor: Browser) -> None:
    host = await visitor.as_("host")
    await host.parts.ledger.put_tenant("shop2", tier="pro", actor="test")
    page = await host.get("/tenants/shop2")
    form_token = page.text.split('name="form_token" value="')[1].split('"')[0]
    answer = await host.http.post(
        form_of("shop2"),
        data={
            "form_token": form_token,
            "of": "quotas:users",
            "value": "unlimited",
            "reason": "why not",
        },
    )
    assert answer.status_code == 403
    assert not await host.parts.ledger.list_overrides("shop2", limit=10)


async def test_usage_is_shown_as_numbers_too(
    admin: Browser, acme: str, usage: SimpleNamespace
) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    usage.reader.given = [
        UsagePoint(hour, "limits.requests.admitted", 1200),
        UsagePoint(hour, "limits.exports.admitted", 34),
        UsagePoint(hour, "limits.requests.denied", 56),
        UsagePoint(hour, "jobs.run_seconds", 90_000_000),
        UsagePoint(hour, "quotas.users.used", 4),
    ]
    text = (await admin.get(f"/tenants/{acme}/usage", range="24h")).text
    for said in ("1,234", "admitted 1,234, denied 56", "1 min 30 s", "users 80%"):
        assert said in text, said
    assert text.count("Nothing was counted") == 2


async def test_charts_are_pictures_that_need_nothing_else(
    admin: Browser, acme: str, usage: SimpleNamespace
) -> None:
    minute = datetime.now(UTC).replace(second=0, microsecond=0)
    usage.reader.given = [UsagePoint(minute, "limits.requests.admitted", 7)]
    for name in ("decisions", "requests", "jobs", "time", "quotas"):
        answer = await admin.get(f"/tenants/{acme}/charts/{name}.svg", range="1h")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/svg+xml"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "<script" not in answer.text
        assert "googleapis" not in answer.text
        assert not re.findall(r"""(?:href|src|url)\s*[=(]\s*["']?[a-z]*:?//""", answer.text)
        assert "prefers-color-scheme:dark" in answer.text
        assert ("No data" in answer.text) == (name != "decisions")
    assert (await admin.get(f"/tenants/{acme}/charts/nothing.svg")).status_code == 404
