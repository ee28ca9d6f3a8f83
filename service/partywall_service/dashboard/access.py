"""Who looks at the pages: the session's cookie, and what shows that a form is one of ours.

The cookie holds the token itself. So any sidecar can read it, nothing is kept anywhere, and each
request asks the `Authenticator`, as the API does: a token that is revoked is out at once. A page
cannot read it (`HttpOnly`), another site cannot make a browser send it (`SameSite=Strict`), it goes
nowhere but here (`Path`), and it ends by itself after `LASTS`.
"""

import base64
import binascii
import hmac
import re
import secrets
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.responses import Response

HOME = "/dashboard"
SIGN_IN = f"{HOME}/sign-in"

LASTS = 12 * 3600
"""Seconds: a working day; then one signs in again."""

LONGEST_TOKEN = 2000
"""Characters. Browsers keep cookies of up to 4096 bytes."""

NONCE = 16
"""Bytes of randomness in a session."""

_SHAPE = re.compile(r"([0-9a-f]{32})\.([A-Za-z0-9_-]+)")


@dataclass(frozen=True, slots=True)
class Session:
    """Somebody who has signed in.

    Attributes:
        token: what was presented.
        nonce: tells this session from others of the same token.
    """

    token: str
    nonce: str

    @classmethod
    def begin(cls, token: str) -> "Session":
        """A new one."""
        return cls(token, secrets.token_hex(NONCE))

    @classmethod
    def parse(cls, cookie: str) -> "Session | None":
        """The session of a cookie; None for what is none."""
        match = _SHAPE.fullmatch(cookie)
        if match is None:
            return None
        try:
            padded = match[2] + "=" * (-len(match[2]) % 4)
            token = base64.urlsafe_b64decode(padded).decode("utf-8", "surrogateescape")
        except binascii.Error:
            return None
        return cls(token, match[1])

    @property
    def cookie(self) -> str:
        """As the browser keeps it: a token may be any text, a cookie may not."""
        token = base64.urlsafe_b64encode(self._key).rstrip(b"=").decode()
        return f"{self.nonce}.{token}"

    @property
    def form_token(self) -> str:
        """What each form of this session carries. Only who knows the token can make it."""
        return hmac.digest(self._key, f"form {self.nonce}".encode(), "sha256").hex()

    def sent(self, form_token: object) -> bool:
        """Whether a form that carries `form_token` is one of this session's."""
        return isinstance(form_token, str) and hmac.compare_digest(
            form_token.encode("utf-8", "replace"), self.form_token.encode()
        )

    @property
    def _key(self) -> bytes:
        return self.token.encode("utf-8", "surrogateescape")


def session_of(request: Request) -> Session | None:
    """The session of whoever sent the request."""
    cookie = request.cookies.get(_name(request))
    return None if cookie is None else Session.parse(cookie)


def keep(request: Request, response: Response, session: Session) -> None:
    """Has the browser keep the session."""
    response.set_cookie(
        _name(request),
        session.cookie,
        max_age=LASTS,
        path=HOME,
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )


def drop(request: Request, response: Response) -> None:
    """Has the browser forget the session."""
    response.delete_cookie(
        _name(request), path=HOME, secure=_is_https(request), httponly=True, samesite="strict"
    )


def from_elsewhere(request: Request) -> bool:
    """Whether a browser says that another site's page sent this.

    As Go's `net/http.CrossOriginProtection`: `Sec-Fetch-Site` tells, which browsers send to trusted
    origins; else `Origin` must name this host. What sends neither is no browser, and has no cookie
    that somebody else could make it send.
    """
    site = request.headers.get("sec-fetch-site")
    if site is not None:
        return site not in ("same-origin", "none")
    origin = request.headers.get("origin")
    return origin is not None and urlsplit(origin).netloc != request.headers.get("host")


def next_page(asked: object) -> str:
    """Where to go after signing in: a page of ours, or the first one."""
    if not isinstance(asked, str) or not re.fullmatch(rf"{HOME}(/[\w.~%/?&=:+-]*)?", asked):
        return HOME
    return HOME if asked.startswith((SIGN_IN, f"{HOME}//")) or ".." in asked else asked


def _name(request: Request) -> str:
    # Of a cookie so called, browsers see to it that only a secure origin set it.
    return "__Secure-partywall" if _is_https(request) else "partywall"


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https"
