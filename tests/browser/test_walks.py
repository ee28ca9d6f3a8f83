"""Ways through the pages, without any script."""

import re

from tests.browser.conftest import VisitorFactory
from tests.browser.installation import CROWD, HOSTILE
from tests.support.browser import BROWSER_TESTS, HOME, Visitor
from tests.support.sidecar import ADMIN_TOKEN

pytestmark = BROWSER_TESTS


async def walk(one: Visitor) -> dict[str, str]:
    """Every page that is led to from the first, as HTML by its address.

    Of pages that differ in their tenant, place or range alone, one.
    """
    seen: dict[str, str] = {}
    shapes: set[str] = set()
    ahead = [HOME]
    while ahead:
        path = ahead.pop(0)
        shape = re.sub(r"tenants/[^/?]+|(cursor|tenant|range)=[^&]+", r"\1", path)
        if shape not in shapes:
            shapes.add(shape)
            seen[path] = await one.open(path, pictures=False)
            ahead += await one.links()
    return seen


async def test_every_link_leads_to_a_page(admin: Visitor) -> None:
    """What is refused or fails on the way is a fault of the visitor's."""
    seen = {path.partition("?")[0] for path in await walk(admin)}
    for path in ("", "/tenants", "/policy", "/audit", "/tenants/acme", "/tenants/acme/usage"):
        assert HOME + path in seen


async def test_tenants_are_found_and_leafed_through(admin: Visitor) -> None:
    rows = admin.page.locator("tbody tr")
    await admin.open(f"{HOME}/tenants")
    first = await rows.count()
    await admin.follow("Next page")
    await admin.page.get_by_text(f"Tenant {CROWD - 1}", exact=True).wait_for()
    assert 0 < await rows.count() < first
    await admin.follow("Back to the first page")
    await admin.page.get_by_label("Status").select_option("suspended")
    await admin.press("Search")
    assert await admin.page.locator("tbody th").all_inner_texts() == ["parted"]
    await admin.page.get_by_label("Status").select_option("any")
    await admin.page.get_by_label("begins with").fill("quiet")
    await admin.press("Search")
    await admin.follow("clinic")
    assert await admin.page.locator("h1").inner_text() == "Quiet Clinic"


async def test_who_is_noisy_and_who_suffers_is_told_with_the_reason(admin: Visitor) -> None:
    await admin.open(HOME)
    said = await admin.page.get_by_role("region", name="Noisy tenants and victims").inner_text()
    assert re.search(r"hammer\s+noisy.*requests", said)
    assert re.search(r"clinic\s+victim.*its requests took \d+\.\d ms each", said)
    queues = await admin.page.get_by_role("region", name="The busiest queues").inner_text()
    assert re.search(r"hammer\s+free\s+20\s.*paused", queues)


async def test_a_name_is_text_whatever_it_holds(visitor: VisitorFactory) -> None:
    """Where scripts may run, too; one that did, or was kept from it, would be a fault."""
    one = await visitor(ADMIN_TOKEN, script=True)
    for path in ("/tenants?search=o-hara", "/tenants/o-hara", "/audit?tenant=o-hara"):
        await one.open(HOME + path)
        assert HOSTILE in await one.text()


async def test_charts_show_what_was_counted(admin: Visitor) -> None:
    await admin.open(f"{HOME}/tenants/acme/usage?range=30d")
    pictures = await admin.page.locator("img.chart").all()
    told = [(await one.get_attribute("src"), await one.get_attribute("alt")) for one in pictures]
    assert len(told) == 5
    for address, said in told:
        assert re.search(r"\d", said or ""), said
        await admin.open(address or "")
        bars = await admin.page.locator(".bars rect").count()
        lines = await admin.page.locator("path.line").count()
        assert bars >= 30 or lines >= 2, (address, bars, lines)
    await admin.open(f"{HOME}/tenants/parted/charts/decisions.svg")
    assert await admin.page.get_by_text("No data").is_visible()
