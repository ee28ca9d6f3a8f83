"""What a tenant's own token sees: that tenant's page, and nothing of any other."""

from types import SimpleNamespace

from partywall_service.quotas.service import Request
from tests.servers.dashboard.conftest import HOME, Browser


async def test_it_sees_its_own_page_and_is_led_there(visitor: Browser) -> None:
    await visitor.parts.ledger.put_tenant("acme", tier="free", actor="test")
    await visitor.parts.quotas.consume("acme", {"users": 2}, Request("the shop"))
    own = await visitor.as_("tenant:acme")
    page = await own.get()
    assert page.url.path == f"{HOME}/tenants/acme"
    assert "2 of 5" in page.text
    for hidden in ("Suspend", "Set an override", "tenant.created", f'href="{HOME}/policy"'):
        assert hidden not in page.text


async def test_it_reads_usage_as_that_tenant(visitor: Browser, usage: SimpleNamespace) -> None:
    await visitor.parts.ledger.put_tenant("acme", tier="free", actor="test")
    own = await visitor.as_("tenant:acme")
    assert (await own.get("/tenants/acme/usage")).status_code == 200
    assert (await own.get("/tenants/acme/charts/jobs.svg")).status_code == 200
    assert usage.reader.asked == ["acme", "acme"]


async def test_every_other_page_is_refused_alike_whether_there_is_such_a_tenant(
    visitor: Browser,
) -> None:
    for tenant in ("acme", "other"):
        await visitor.parts.ledger.put_tenant(tenant, tier="free", actor="test")
    own = await visitor.as_("tenant:acme")
    for path in ("/tenants/{}", "/tenants/{}/usage", "/tenants/{}/charts/jobs.svg"):
        answers = [await own.get(path.format(one)) for one in ("other", "nobody")]
        assert [one.status_code for one in answers] == [403, 403]
        bodies = {one.text.split("<main")[1].split("</main")[0] for one in answers}
        assert len(bodies) == 1
    for path in ("/tenants", "/policy", "/audit"):
        assert (await own.get(path)).status_code == 403


async def test_it_changes_nothing(visitor: Browser) -> None:
    await visitor.parts.ledger.put_tenant("acme", tier="free", status="active", actor="test")
    own = await visitor.as_("tenant:acme")
    page = await own.get("/tenants/acme")
    form_token = page.text.split('name="form_token" value="')[1].split('"')[0]
    for action in ("suspend", "activate", "overrides", "overrides/quotas/users/end"):
        answer = await own.http.post(
            f"{HOME}/tenants/acme/{action}",
            data={
                "form_token": form_token,
                "of": "quotas:users",
                "value": "unlimited",
                "reason": "mine",
            },
        )
        assert answer.status_code == 403, action
    record = await own.parts.ledger.get_tenant("acme")
    assert record is not None
    assert record.status == "active"
    assert not await own.parts.ledger.list_overrides("acme", limit=10)
