"""Each page in Chromium: whole, for everybody, in the light and in the dark, also on a phone.

A page is loaded once, and what its tests see of it they may change.
"""

from dataclasses import dataclass
from typing import Literal

import pytest
import pytest_asyncio

from tests.browser.conftest import VisitorFactory
from tests.browser.installation import HOSTILE, LONGEST
from tests.support.browser import BROWSER_TESTS, DESKTOP, HOME, PHONE, SCHEMES, Visitor
from tests.support.sidecar import ADMIN_TOKEN

pytestmark = BROWSER_TESTS


@dataclass(frozen=True)
class Page:
    """One page, or one state of a page.

    Attributes:
        name: of its pictures.
        path: below `/dashboard`.
        says: a part of it.
        who: looks.
        status: of the answer.
    """

    name: str
    path: str
    says: str
    who: Literal["admin", "tenant", "nobody"] = "admin"
    status: int = 200


PAGES = [
    Page("sign-in", "/sign-in", "Token", "nobody"),
    Page("overview", "", "victim"),
    Page("tenants", "/tenants", "Next page"),
    Page("tenant", "/tenants/acme", "Acme GmbH"),
    Page("tenant-unregistered", "/tenants/walk-in", "Nobody registered this tenant"),
    Page("tenant-own", "/tenants/acme", "My tenant", "tenant"),
    Page("usage", "/tenants/acme/usage?range=30d", "in numbers"),
    Page("policy", "/policy", "observed only"),
    Page("audit", "/audit", "override.set"),
    Page("no-page", "/nothing", "There is no such page", status=404),
]

STATES = [
    Page("tenant-hostile", "/tenants/o-hara", HOSTILE),
    Page("tenant-long", f"/tenants/{LONGEST}", LONGEST),
    Page("tenants-none", "/tenants?search=nothing&tier=pro", "No tenant is found"),
    Page("tenant-hour", "/tenants/acme?range=1h", "Usage, last hour"),
    Page("tenant-month", "/tenants/acme?range=30d", "Usage, last 30 days"),
    Page("tenant-suspended", "/tenants/parted", "0 of 32"),
    Page("tenant-provisioning", "/tenants/newcomer", "provisioning"),
]
"""Of those pages; the first two hold what is too long for a line."""

_WIDTH = "document.scrollingElement.scrollWidth"


@pytest.fixture(scope="module", params=[*PAGES, *STATES], ids=lambda page: page.name)
def page(request: pytest.FixtureRequest) -> Page:
    """Each of them."""
    given: Page = request.param
    return given


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def reader(page: Page, visitor: VisitorFactory, tenant_token: str) -> Visitor:
    """Somebody at the page, with scripts, which these tests look with."""
    token = {"admin": ADMIN_TOKEN, "tenant": tenant_token, "nobody": None}[page.who]
    one = await visitor(token, script=True)
    await one.open(HOME + page.path, status=page.status)
    return one


async def test_a_page_loads_without_a_fault_and_asks_nobody_but_the_sidecar(
    reader: Visitor, page: Page
) -> None:
    await reader.load_pictures()
    assert page.says in await reader.text()
    assert await reader.page.locator("h1").count() == 1
    for scheme in SCHEMES[: 2 if page in PAGES else 1]:
        await reader.prefer(scheme)
        await reader.take_picture(f"{page.name}-{scheme}")


@pytest.mark.parametrize("page", [*PAGES, *STATES[:2]], ids=lambda page: page.name, indirect=True)
async def test_a_page_fits_a_phone_without_being_moved_sideways(
    reader: Visitor, page: Page
) -> None:
    told = await reader.page.locator("meta[name=viewport]").get_attribute("content")
    assert told == "width=device-width, initial-scale=1"
    await reader.resize(PHONE)
    assert await reader.page.evaluate(_WIDTH) == PHONE[0]
    for scheme in SCHEMES if page in PAGES else ():
        await reader.prefer(scheme)
        await reader.take_picture(f"{page.name}-phone-{scheme}")
    await reader.open_details()
    assert await reader.page.evaluate(_WIDTH) == PHONE[0]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name, indirect=True)
async def test_a_page_keeps_nobody_out(reader: Visitor) -> None:
    """As far as axe can tell: in both themes, and as a phone has it, in the same colours."""
    await reader.open_details()
    await reader.thin_out()
    await reader.resize(PHONE)
    assert await reader.barriers(colours=False) == ""
    await reader.resize(DESKTOP)
    await reader.prefer("light")
    assert await reader.barriers() == ""
    await reader.prefer("dark")
    assert await reader.barriers(others=False) == ""
