"""In and out of the pages, as a browser keeps sessions."""

import time

import httpx

from tests.acceptance.asking import new_token
from tests.browser.conftest import VisitorFactory
from tests.support.browser import BROWSER_TESTS, HOME, SIGN_IN, Visitor
from tests.support.sidecar import ADMIN_TOKEN

pytestmark = BROWSER_TESTS

REFUSED = "That is not a token of this installation."


def path_of(one: Visitor) -> str:
    """Where the visitor is."""
    return one.page.url.removeprefix(one.origin)


async def test_signing_in_leads_to_the_page_that_was_asked_for(visitor: VisitorFactory) -> None:
    one = await visitor()
    await one.open(f"{HOME}/tenants?tier=pro")
    assert path_of(one).startswith(SIGN_IN)
    await one.sign_in(ADMIN_TOKEN)
    assert path_of(one) == f"{HOME}/tenants?tier=pro"
    assert "acme" in await one.text()


async def test_what_is_no_token_is_told_beside_the_field(visitor: VisitorFactory) -> None:
    one = await visitor()
    one.may_be_refused(403)
    await one.sign_in("wrong")
    assert await one.page.get_by_role("alert").inner_text() == REFUSED
    assert await one.page.get_by_label("Token").get_attribute("aria-invalid") == "true"
    assert await one.page.get_by_label("Token").input_value() == ""
    assert await one.context.cookies() == []


async def test_the_cookie_is_kept_from_scripts_and_other_sites(visitor: VisitorFactory) -> None:
    one = await visitor(script=True)
    await one.sign_in(ADMIN_TOKEN)
    (cookie,) = await one.context.cookies()
    assert (cookie["httpOnly"], cookie["sameSite"], cookie["path"]) == (True, "Strict", HOME)
    assert 11.9 < (cookie["expires"] - time.time()) / 3600 < 12.1
    assert await one.page.evaluate("document.cookie") == ""
    assert ADMIN_TOKEN not in await one.page.content()
    assert ADMIN_TOKEN not in one.page.url


async def test_a_link_of_another_site_leads_to_the_page_though_no_cookie_goes_along(
    visitor: VisitorFactory,
) -> None:
    one = await visitor(ADMIN_TOKEN)
    await one.play_another_site(f'<a href="{one.origin}{HOME}/policy">look</a>')
    await one.follow("look")
    await one.page.wait_for_url(f"{one.origin}{HOME}/policy")
    assert await one.page.locator("h1").inner_text() == "Policy"

    await one.play_another_site(f'<a href="{one.origin}{SIGN_IN}?next={HOME}/policy">look</a>')
    await one.follow("look")
    assert await one.page.locator("h1").inner_text() == "Sign in"
    await one.page.goto(one.page.url)  # as by the address bar
    assert path_of(one) == f"{HOME}/policy"


async def test_a_link_of_another_site_asks_for_the_token_where_no_session_is(
    visitor: VisitorFactory,
) -> None:
    one = await visitor()
    await one.play_another_site(f'<a href="{one.origin}{HOME}/policy">look</a>')
    await one.follow("look")
    await one.page.get_by_label("Token").wait_for()
    await one.sign_in(ADMIN_TOKEN)
    assert path_of(one) == f"{HOME}/policy"


async def test_a_revoked_token_is_out_with_the_next_page(
    visitor: VisitorFactory, api: httpx.AsyncClient
) -> None:
    made = await new_token(api, "host")
    one = await visitor(made["token"])
    await one.open(f"{HOME}/policy")
    assert (await api.delete(f"/v1/tokens/{made['id']}")).status_code == 204
    await one.follow("Tenants")
    assert path_of(one).startswith(SIGN_IN)
    assert await one.context.cookies() == []


async def test_who_signed_out_leaves_nothing_to_go_back_to(visitor: VisitorFactory) -> None:
    one = await visitor()
    await one.sign_in(ADMIN_TOKEN)
    await one.open(f"{HOME}/tenants")
    await one.press("Sign out")
    assert "You are signed out." in await one.text()
    assert await one.context.cookies() == []
    await one.page.go_back()
    assert "acme" not in await one.text()
    assert path_of(one).startswith(SIGN_IN)
    await one.open(f"{HOME}/tenants")
    assert path_of(one).startswith(SIGN_IN)
