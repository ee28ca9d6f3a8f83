"""A real browser: Chromium, driven by Playwright, and who sits at it.

It is the system's own Chromium: one that Playwright would download needs a way out.
"""

import html
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any, Literal

import pytest
from axe_playwright_python.base import AXE_SCRIPT, AxeResults
from playwright.async_api import (
    Browser,
    BrowserContext,
    ConsoleMessage,
    Cookie,
    Dialog,
    Page,
    Request,
    Response,
    Route,
    async_playwright,
)

from tests.support.screenshots import SCREENSHOTS

Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")

DESKTOP = (1280, 800)
PHONE = (360, 740)
"""Pixels, as CSS counts them."""

HOME = "/dashboard"
SIGN_IN = f"{HOME}/sign-in"

_NOWHERE = f"{HOME}/static/icon.svg"
"""A blank page is another site's, and to go there and back costs two processes."""

BROWSER_TESTS = pytest.mark.asyncio(loop_scope="package")
"""The mark of such tests: one event loop, so that one Chromium serves them."""

_NAMES = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = (
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    # It asks nothing of its makers, where nobody would answer.
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_PATIENCE = 15_000
"""Milliseconds that a page may take on a busy machine."""

_STANDARDS = ("wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice")
_COLOURS = "color-contrast"


def find_chromium() -> str:
    """Where it is; `PARTYWALL_CHROMIUM` wins.

    Where there is none, the test is skipped, but in CI (`CI` is true, or `PARTYWALL_BROWSER` is
    `required`) it fails: nobody would read there that it was skipped.
    """
    named = os.environ.get("PARTYWALL_CHROMIUM")
    names = (named,) if named else _NAMES
    for name in names:
        if found := shutil.which(name):
            return found
    why = f"no browser: expected one of {', '.join(names)}; install Debian's package chromium, or "
    why += "name another Chromium in PARTYWALL_CHROMIUM"
    is_ci = os.environ.get("CI", "").lower() in ("1", "true")
    if named or is_ci or os.environ.get("PARTYWALL_BROWSER") == "required":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


@asynccontextmanager
async def running_chromium() -> AsyncIterator[Browser]:
    """It, without a window."""
    path = find_chromium()
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=path,
            args=_FLAGS,
            # Chromium's own needs rights that a container, and root, do not have.
            chromium_sandbox=False,
        )
        yield browser
        await browser.close()


async def new_visitor(browser: Browser, origin: str, *, script: bool) -> "Visitor":
    """Somebody at the browser; `script` says whether pages' scripts run."""
    context = await browser.new_context(
        base_url=origin,
        java_script_enabled=script,
        reduced_motion="reduce",  # so that what is scrolled to is there
    )
    context.set_default_timeout(_PATIENCE)
    return Visitor(context, await context.new_page(), origin)


class Visitor:
    """Somebody at a browser of their own, with cookies of their own.

    Attributes:
        context: the browser's, for this visitor alone.
        page: the one that is looked at.
        origin: of the dashboard.
        faults: what no page may do: an error in the console, a request that fails, or that asks
            anybody but the sidecar.
    """

    def __init__(self, context: BrowserContext, page: Page, origin: str) -> None:
        self.context = context
        self.page = page
        self.origin = origin
        self.faults: list[str] = []
        self._refusals: set[int] = set()
        self._sites = {origin}
        context.on("console", self._console)
        context.on("weberror", lambda error: self.faults.append(f"error: {error.error}"))
        context.on("request", self._request)
        context.on("requestfailed", self._failed)
        context.on("response", self._response)
        context.on("dialog", self._dialog)

    async def begin_anew(self, cookies: Sequence[Cookie]) -> None:
        """As somebody else, who has these cookies, at a window of the usual size."""
        await self.page.goto(_NOWHERE)
        await self.context.clear_cookies()
        await self.context.add_cookies(cookies)
        await self.resize(DESKTOP)
        await self.prefer("light")
        self._refusals.clear()
        self._sites = {self.origin}

    def take_faults(self) -> list[str]:
        """The faults so far, which are forgotten then."""
        found, self.faults = self.faults, []
        return found

    def may_be_refused(self, *statuses: int) -> None:
        """Pages may from now on be answered so, and that is no fault."""
        self._refusals |= set(statuses)

    async def play_another_site(self, body: str) -> None:
        """Goes to a page of another site: another name of this machine is one."""
        site = self.origin.replace("127.0.0.1", "localhost")
        self._sites.add(site)

        async def answer(route: Route) -> None:
            await route.fulfill(content_type="text/html", body=f"<!doctype html>{body}")

        await self.context.route(f"{site}/**", answer)
        await self.page.goto(f"{site}/")
        await self.context.unroute(f"{site}/**", answer)

    async def open(self, path: str, *, status: int = 200, pictures: bool = True) -> str:
        """Goes to a page by its address.

        Args:
            path: of the address.
            status: that it is answered with.
            pictures: whether to wait for those that are seen at once.

        Returns:
            Its HTML.
        """
        if status >= 400:
            self.may_be_refused(status)
        answer = await self.page.goto(path, wait_until="load" if pictures else "domcontentloaded")
        assert answer is not None
        assert answer.status == status, f"{path}: {answer.status}"
        return await answer.text()

    async def sign_in(self, token: str) -> None:
        """By the form of the page that is open, or by its own page."""
        if not self.page.url.startswith(f"{self.origin}{SIGN_IN}"):
            await self.open(SIGN_IN)
        await self.page.get_by_label("Token").fill(token)
        await self.press("Sign in")

    async def press(self, button: str) -> None:
        """The button of that name, once the page that it leads to is there."""
        await self.page.get_by_role("button", name=button, exact=True).click()
        await self.page.wait_for_load_state()

    async def follow(self, link: str) -> None:
        """The link of that text, once the page that it leads to is there."""
        await self.page.get_by_role("link", name=link, exact=True).click()
        await self.page.wait_for_load_state()

    async def links(self) -> list[str]:
        """Where the page leads to."""
        found = re.findall(r'<a\b[^>]* href="([^"#][^"]*)"', await self.page.content())
        return [html.unescape(link) for link in found]

    async def text(self) -> str:
        """What the page says to who looks at it."""
        return await self.page.locator("body").inner_text()

    async def load_pictures(self) -> None:
        """Loads those that wait until they are scrolled to; each must be one."""
        await self.page.evaluate(_LOAD_PICTURES)

    async def open_details(self) -> None:
        """Opens all that can be folded."""
        await self.page.evaluate(
            "for (const one of document.querySelectorAll('details')) one.open = true"
        )

    async def prefer(self, scheme: Scheme) -> None:
        """Has the system's theme be that."""
        await self.page.emulate_media(color_scheme=scheme)

    async def resize(self, size: tuple[int, int]) -> None:
        """Has the window be that wide and high."""
        width, height = size
        await self.page.set_viewport_size({"width": width, "height": height})

    async def take_picture(self, name: str) -> None:
        """Of the whole page, not only of what is seen of it at once."""
        SCREENSHOTS.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=SCREENSHOTS / f"{name}.png", full_page=True)

    async def thin_out(self, rows: int = 4) -> None:
        """Leaves so many rows in each table: the others are like them, and axe looks at each."""
        await self.page.evaluate(_THIN_OUT, rows)

    async def barriers(self, *, colours: bool = True, others: bool = True) -> str:
        """What axe finds that keeps people out of the page; nothing where there is nothing.

        By WCAG 2.2, A and AA, and what is good practice besides.

        Args:
            colours: whether they are looked at, which takes longest.
            others: whether all else is.
        """
        if not await self.page.evaluate("'axe' in window"):
            await self.page.evaluate(AXE_SCRIPT)
        only: dict[str, Any] = {"type": "tag", "values": _STANDARDS}
        if not others:
            only = {"type": "rule", "values": [_COLOURS]}
        options = {
            "runOnly": only,
            "rules": {_COLOURS: {"enabled": colours}},
            "resultTypes": ["violations"],
        }
        found = AxeResults(await self.page.evaluate("(options) => axe.run(options)", options))
        return found.generate_report() if found.violations_count else ""

    async def _dialog(self, dialog: Dialog) -> None:
        self.faults.append(f"dialog: {dialog.message}")
        await dialog.dismiss()

    def _console(self, message: ConsoleMessage) -> None:
        # What failed to load is told by its response, which says whether it may be so.
        if message.type in ("error", "warning") and not message.text.startswith("Failed to load"):
            self.faults.append(f"console: {message.text}")

    def _request(self, request: Request) -> None:
        if not request.url.startswith(tuple(f"{site}/" for site in self._sites)):
            self.faults.append(f"asked elsewhere: {request.url}")

    def _failed(self, request: Request) -> None:
        # Pictures that nobody waited for are given up by the browser as the visitor goes on.
        if request.failure != "net::ERR_ABORTED":
            self.faults.append(f"failed: {request.url}: {request.failure}")

    def _response(self, response: Response) -> None:
        is_page = response.request.is_navigation_request()
        if response.status >= 400 and not (is_page and response.status in self._refusals):
            self.faults.append(f"{response.status}: {response.url}")


_LOAD_PICTURES = """
    async () => {
        const pictures = [...document.images];
        for (const one of pictures) one.loading = "eager";
        await Promise.all(pictures.map((one) => one.decode()));
    }
"""
_THIN_OUT = """
    (most) => {
        for (const table of document.querySelectorAll("tbody")) {
            for (const row of [...table.rows].slice(most)) row.remove();
        }
    }
"""
