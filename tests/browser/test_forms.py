"""What an admin changes by the pages' forms, without any script."""

import re

import httpx

from tests.acceptance.asking import check
from tests.browser.conftest import VisitorFactory
from tests.support.browser import BROWSER_TESTS, HOME, Visitor
from tests.support.sidecar import ADMIN_TOKEN

pytestmark = BROWSER_TESTS


async def fill(one: Visitor, **fields: str) -> None:
    """The form of an override, which is unfolded first."""
    if not await one.page.get_by_label("Value").is_visible():
        await one.page.get_by_text("Set an override", exact=True).click()
    for name, value in fields.items():
        field = one.page.locator(f"form [name={name}]")
        await (field.select_option(value) if name == "of" else field.fill(value))


async def fault(one: Visitor, field: str) -> str:
    """What is said beside a field of the form, which must be tied to it."""
    box = one.page.locator(f"form [name={field}]")
    told = one.page.locator(f"#{field}-error")
    assert await box.get_attribute("aria-invalid") == "true"
    assert f"{field}-error" in (await box.get_attribute("aria-describedby") or "")
    above, below = await box.bounding_box(), await told.bounding_box()
    assert above is not None
    assert below is not None
    assert 0 <= below["y"] - above["y"] - above["height"] < 80
    return await told.inner_text()


async def test_an_override_applies_at_once_is_shown_and_ends(
    admin: Visitor, api: httpx.AsyncClient, tenant: str
) -> None:
    assert (await check(api, tenant, cost=100))["allowed"]
    assert not (await check(api, tenant))["allowed"]

    await admin.open(f"{HOME}/tenants/{tenant}")
    assert "100 of 100" in await admin.text()
    await fill(admin, of="limits:requests", value="500/minute", reason="launch day")
    await admin.press("Set the override")
    said = await admin.text()
    assert "The override is set." in said
    assert "100 of 500" in said
    assert re.search(r"limits requests\s+500/minute\s+never\s+launch day\s+admin", said)
    assert "override.set" in said
    assert (await check(api, tenant))["allowed"]

    await admin.press("End the override of limits requests")
    said = await admin.text()
    assert "The override has ended." in said
    assert "The tier applies as it is." in said
    assert not (await check(api, tenant))["allowed"]


async def test_an_override_ends_by_itself_at_the_instant_that_was_typed(
    admin: Visitor, api: httpx.AsyncClient, tenant: str
) -> None:
    await admin.open(f"{HOME}/tenants/{tenant}")
    await fill(
        admin, of="quotas:users", value="50", expires_at="2040-05-06T07:08", reason="a school year"
    )
    await admin.press("Set the override")
    assert "2040-05-06 07:08:00" in await admin.text()
    (kept,) = (await api.get(f"/v1/tenants/{tenant}/overrides")).json()["overrides"]
    assert (kept["value"], kept["expires_at"]) == (50, "2040-05-06T07:08:00Z")


async def test_what_is_wrong_is_told_beside_the_field_and_what_was_typed_stays(
    admin: Visitor, api: httpx.AsyncClient, tenant: str
) -> None:
    await admin.open(f"{HOME}/tenants/{tenant}")
    typed = {
        "of": "quotas:users",
        "value": 'as many as "possible" <b>',
        "expires_at": "2001-01-01T00:00",
        "reason": "because",
    }
    await fill(admin, **typed)
    admin.may_be_refused(422)
    await admin.press("Set the override")
    assert "expected a whole number" in await fault(admin, "value")
    assert "from now on" in await fault(admin, "expires_at")
    for name, value in typed.items():
        assert await admin.page.locator(f"form [name={name}]").input_value() == value
    await admin.page.emulate_media(color_scheme="dark")
    await admin.take_picture("tenant-refused-form-dark")
    assert (await api.get(f"/v1/tenants/{tenant}/overrides")).json()["overrides"] == []

    await fill(admin, value="7", expires_at="")
    await admin.press("Set the override")
    assert "0 of 7" in await admin.text()


async def test_a_tenant_is_suspended_and_activated(
    admin: Visitor, api: httpx.AsyncClient, tenant: str
) -> None:
    await admin.open(f"{HOME}/tenants/{tenant}")
    await admin.press("Suspend")
    assert "The tenant is suspended." in await admin.text()
    assert (await check(api, tenant))["reason"] == "tenant-suspended"
    await admin.press("Activate")
    assert "The tenant is active." in await admin.text()
    assert (await check(api, tenant))["allowed"]
    await admin.page.reload()
    assert "The tenant is active." not in await admin.text()


async def test_a_form_without_its_sessions_token_is_refused(
    admin: Visitor, api: httpx.AsyncClient, tenant: str
) -> None:
    admin.may_be_refused(403)
    for spoil in ("one.remove()", "one.value = one.value.replace(/./g, '0')"):
        await admin.open(f"{HOME}/tenants/{tenant}")
        hidden = "document.querySelectorAll('[name=form_token]')"
        await admin.page.evaluate(f"for (const one of {hidden}) {spoil}")
        await admin.press("Suspend")
        assert "not of your session" in await admin.text()
    assert (await check(api, tenant))["allowed"]


async def test_another_sites_form_is_refused_though_the_admin_has_signed_in(
    visitor: VisitorFactory, api: httpx.AsyncClient, tenant: str
) -> None:
    one = await visitor(ADMIN_TOKEN)
    one.may_be_refused(403)
    form = f'<form method="post" action="{one.origin}{HOME}/tenants/{tenant}/suspend">'
    await one.play_another_site(f"{form}<button>Win</button></form>")
    await one.press("Win")
    assert "sent by another site" in await one.text()
    assert (await check(api, tenant))["allowed"]
