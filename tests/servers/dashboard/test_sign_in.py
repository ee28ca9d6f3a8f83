"""In and out of the dashboard: sessions, and which forms are heard."""

import httpx
import structlog.testing

from tests.servers.dashboard.conftest import HOME, Browser
from tests.support.api import ADMIN

REFUSED = "That is not a token of this installation."


def cookie_of(answer: httpx.Response) -> str:
    """The session's cookie, as the answer that began the session set it."""
    (first, *_) = [*answer.history, answer]
    cookies = first.headers.get_list("set-cookie")
    (cookie,) = [one for one in cookies if one.startswith(("__Secure-partywall=", "partywall="))]
    return cookie


async def test_who_has_not_signed_in_is_asked_to_and_gets_the_page_then(visitor: Browser) -> None:
    asked = await visitor.get("/tenants", search="a b", tier="free")
    assert asked.url.path == f"{HOME}/sign-in"
    answer = await visitor.send(asked, f"{HOME}/sign-in", token=ADMIN)
    assert answer.url.path == f"{HOME}/tenants"
    assert dict(answer.url.params) == {"search": "a b", "tier": "free"}


async def test_what_is_no_token_is_told_by_one_sentence(visitor: Browser) -> None:
    for token in ["", " ", "wrong", "pw_0123456789ab_" + "x" * 43, "x" * 5000]:
        answer = await visitor.sign_in(token)
        assert answer.status_code == 403
        assert REFUSED in answer.text
        assert not visitor.http.cookies


async def test_the_cookie_is_for_these_pages_alone_and_no_script_reads_it(visitor: Browser) -> None:
    cookie = cookie_of(await visitor.sign_in(ADMIN))
    for part in ("HttpOnly", "SameSite=strict", "Path=/dashboard", "Max-Age=43200"):
        assert part in cookie
    assert "Secure" not in cookie


async def test_over_https_the_cookie_is_secure(visitor: Browser) -> None:
    visitor.http.base_url = httpx.URL("https://sidecar")
    cookie = cookie_of(await visitor.sign_in(ADMIN))
    assert cookie.startswith("__Secure-partywall=")
    assert "; Secure" in cookie
    assert (await visitor.get()).url.path == HOME


async def test_a_revoked_token_is_out_at_once(visitor: Browser) -> None:
    token = await visitor.token("admin")
    await visitor.sign_in(token)
    assert (await visitor.get("/policy")).url.path == f"{HOME}/policy"
    token_id = token.split("_")[1]
    await visitor.parts.ledger.revoke_token(token_id, actor="test")
    visitor.parts.authenticator.forget(token_id)  # as the notice of it does
    assert (await visitor.get("/policy")).url.path == f"{HOME}/sign-in"
    assert not visitor.http.cookies


async def test_signing_out_ends_the_session_and_says_so_once(admin: Browser) -> None:
    answer = await admin.send(await admin.get(), f"{HOME}/sign-out")
    assert answer.url.path == f"{HOME}/sign-in"
    assert "You are signed out." in answer.text
    assert "You are signed out." not in (await admin.get()).text
    assert not admin.http.cookies


async def test_a_form_of_another_site_is_not_heard(visitor: Browser) -> None:
    for headers in [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "", "Origin": "http://sidecar"},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
    ]:
        visitor.http.headers.pop("Sec-Fetch-Site", None)
        answer = await visitor.http.post(f"{HOME}/sign-in", data={"token": ADMIN}, headers=headers)
        assert answer.status_code == 403
        assert "another site" in answer.text
        assert not visitor.http.cookies


async def test_a_link_of_another_site_goes_on_by_a_page_of_ours(admin: Browser) -> None:
    """The browser sends no cookie along with the link, and does with what that page leads to."""
    there = f"{HOME}/sign-in?next=/dashboard/policy%3Fa%3Db"
    answer = await admin.another().http.get(
        f"{HOME}/policy?a=b", headers={"Sec-Fetch-Site": "cross-site"}
    )
    assert answer.url.path == f"{HOME}/policy"
    assert answer.headers["refresh"] == f"0; url={there}"
    assert f'href="{there}"' in answer.text
    assert (await admin.http.get(there)).url == f"http://sidecar{HOME}/policy?a=b"
    assert (await admin.another().http.get(there)).url.path == f"{HOME}/sign-in"


async def test_a_browser_that_says_less_may_sign_in(visitor: Browser) -> None:
    for headers in [{"Origin": "http://sidecar"}, {}]:
        visitor.http.headers.pop("Sec-Fetch-Site", None)
        answer = await visitor.http.post(f"{HOME}/sign-in", data={"token": ADMIN}, headers=headers)
        assert answer.url.path == HOME


async def test_a_form_without_the_sessions_own_token_is_refused(admin: Browser) -> None:
    await admin.parts.ledger.put_tenant("acme", tier="free", actor="test")
    other = admin.another()
    await other.sign_in(ADMIN)
    page = await other.get("/tenants/acme")
    theirs = page.text.split('name="form_token" value="')[1].split('"')[0]
    for form_token in ({"x": "1"}, {"form_token": ""}, {"form_token": theirs}):
        answer = await admin.http.post(f"{HOME}/tenants/acme/suspend", data=form_token)
        assert answer.status_code == 403
        assert "form is not of your session" in answer.text
    record = await admin.parts.ledger.get_tenant("acme")
    assert record is not None
    assert record.status == "active"


async def test_signing_in_leads_to_no_other_place(visitor: Browser) -> None:
    for following in [
        "//evil.example",
        "https://evil.example",
        "/dashboard//evil.example",
        "/dashboard/../docs",
        "/dashboard\\evil",
        "/dashboardevil",
        "/docs",
        "/dashboard/sign-in",
        "/dashboard\r\nX: y",
    ]:
        answer = await visitor.sign_in(ADMIN, following)
        assert answer.history[0].headers["location"] == HOME


async def test_a_cookie_that_is_none_of_ours_is_no_session(visitor: Browser) -> None:
    for cookie in ["", "x", "a.b", "0" * 32 + ".", "0" * 32 + ".A", "é"]:
        answer = await visitor.http.get(
            HOME, headers={"Cookie": f"partywall={cookie}".encode("latin-1")}
        )
        assert answer.url.path == f"{HOME}/sign-in"


async def test_no_token_is_shown_or_logged(visitor: Browser) -> None:
    token = await visitor.token("admin")
    with structlog.testing.capture_logs() as logged:
        wrong = await visitor.sign_in(f"{token}x")
        page = await visitor.sign_in(token)
    for text in (wrong.text, page.text, str(logged), str(page.url)):
        assert token not in text
