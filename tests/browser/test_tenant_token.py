"""What a tenant's own token shows: that tenant's page, and nothing of any other."""

import pytest_asyncio

from tests.browser.conftest import VisitorFactory
from tests.browser.installation import HOSTILE, LONGEST
from tests.browser.test_walks import walk
from tests.support.browser import BROWSER_TESTS, HOME, Visitor

pytestmark = BROWSER_TESTS

OTHERS = ("clinic", "hammer", "globex", "newcomer", "parted", "o-hara", "walk-in", "t-0", LONGEST)


@pytest_asyncio.fixture(loop_scope="package")
async def acme(visitor: VisitorFactory, tenant_token: str) -> Visitor:
    """Somebody of acme's."""
    return await visitor(tenant_token)


async def test_it_leads_to_its_own_page_which_changes_nothing(acme: Visitor) -> None:
    await acme.open(HOME)
    assert acme.page.url == f"{acme.origin}{HOME}/tenants/acme"
    assert "31 of 50" in await acme.text()
    forms = acme.page.locator("form")
    assert await forms.count() == 1
    assert await forms.get_attribute("action") == f"{HOME}/sign-out"


async def test_no_page_that_is_led_to_names_another_tenant(acme: Visitor) -> None:
    seen = await walk(acme)
    own = f"{HOME}/tenants/acme"
    assert {path.partition("?")[0] for path in seen} == {HOME, own, f"{own}/usage"}
    for path, page in seen.items():
        for other in OTHERS:
            assert other not in page, (path, other)


async def test_pages_of_others_and_of_all_are_refused_in_the_same_words(acme: Visitor) -> None:
    said = set()
    for path in ("hammer", "o-hara", "nobody", "hammer/usage", "hammer/charts/decisions.svg"):
        await acme.open(f"{HOME}/tenants/{path}", status=403)
        said.add(await acme.page.locator("main").inner_text())
    assert len(said) == 1, said
    for path in ("/tenants", "/policy", "/audit"):
        await acme.open(HOME + path, status=403)
        said.add(await acme.page.locator("main").inner_text())
    assert not any(other in text for text in said for other in (*OTHERS, HOSTILE))
