"""The pages without a mouse, and without any script."""

import httpx

from tests.acceptance.asking import check
from tests.browser.conftest import VisitorFactory
from tests.support.browser import BROWSER_TESTS, HOME, Visitor
from tests.support.sidecar import ADMIN_TOKEN

pytestmark = BROWSER_TESTS

_FOCUSED = """
    () => {
        const one = document.activeElement, box = one.getBoundingClientRect();
        const style = getComputedStyle(one);
        return {
            name: (one.labels?.[0] ?? one).textContent.trim() || one.getAttribute("aria-label"),
            seen: box.width > 0 && box.right > 0 && box.bottom > 0 && box.top < innerHeight
                && style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
        };
    }
"""


async def tab_to(one: Visitor, name: str) -> list[str]:
    """Goes on by the Tab key until what is called so has the focus, which shows all the way.

    Returns:
        The names of what had it before.
    """
    passed: list[str] = []
    for _ in range(60):
        await one.page.keyboard.press("Tab")
        focused = await one.page.evaluate(_FOCUSED)
        assert focused["seen"], focused
        if focused["name"] == name:
            return passed
        passed.append(focused["name"])
    raise AssertionError(f"expected {name!r} among {passed}")


async def enter(one: Visitor) -> None:
    """The key, for what leads to another page."""
    async with one.page.expect_navigation():
        await one.page.keyboard.press("Enter")


async def test_signing_in_takes_no_mouse(visitor: VisitorFactory) -> None:
    one = await visitor()
    await one.open(f"{HOME}/sign-in")
    assert await tab_to(one, "Token") == ["Skip to the content", "Partywall"]
    await one.page.keyboard.type(ADMIN_TOKEN)
    await enter(one)
    assert await one.page.locator("h1").inner_text() == "Overview"


async def test_the_first_key_skips_to_the_content(admin: Visitor) -> None:
    await admin.open(f"{HOME}/tenants")
    assert await tab_to(admin, "Skip to the content") == []
    await admin.page.keyboard.press("Enter")
    assert await admin.page.evaluate("document.activeElement.id") == "main"
    assert await tab_to(admin, "Id or name begins with") == []


async def test_an_override_is_set_without_a_mouse(
    admin: Visitor, api: httpx.AsyncClient, tenant: str
) -> None:
    await admin.open(f"{HOME}/tenants/{tenant}")
    await tab_to(admin, "Set an override")
    await admin.page.keyboard.press("Space")
    await tab_to(admin, "What")
    await admin.page.keyboard.type("limits requests")
    await tab_to(admin, "Value")
    await admin.page.keyboard.type("7/minute")
    await tab_to(admin, "Reason")
    await admin.page.keyboard.type("no mouse at hand")
    await tab_to(admin, "Set the override")
    await enter(admin)
    assert "The override is set." in await admin.text()
    assert (await check(api, tenant))["windows"][0]["quota"] == 7
