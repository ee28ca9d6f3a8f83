"""Pages as responses: templates, compiled at their first use, and headers that guard a browser."""

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.resources import files
from typing import Any

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined

from partywall_service.api.auth import Principal
from partywall_service.dashboard import formats
from partywall_service.dashboard.access import HOME, Session
from partywall_service.dashboard.reading import Away

_GUARDED = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    # Not `no-referrer`: with that browsers send `Origin: null` with our own forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}
_PAGE = {
    **_GUARDED,
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
}
_PICTURE = {
    **_GUARDED,
    # A chart brings its own style; opened by itself it can do nothing else either.
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'unsafe-inline'; sandbox; frame-ancestors 'none'"
    ),
    "Cache-Control": "private, max-age=10",
}
_STATIC = {**_GUARDED, "Cache-Control": "public, max-age=31536000, immutable"}

NOTES: Mapping[str, str] = {
    "override-set": "The override is set. Every sidecar applies it within half a second.",
    "override-ended": "The override has ended. The tier applies again.",
    "suspended": "The tenant is suspended. Its checks are denied, its jobs wait.",
    "active": "The tenant is active.",
    "signed-out": "You are signed out.",
}
"""What is said once, on the page after a change; the cookie names only which."""

_NOTE_COOKIE = "partywall-note"

_TYPES = {"css": "text/css; charset=utf-8", "svg": "image/svg+xml"}


def _static() -> dict[str, tuple[bytes, str]]:
    folder = files(__package__) / "static"
    found = [one for one in folder.iterdir() if one.name.rpartition(".")[2] in _TYPES]
    return {one.name: (one.read_bytes(), _TYPES[one.name.rpartition(".")[2]]) for one in found}


_FILES = _static()


def _address(name: str) -> str:
    """A static file's address. It changes with the content, so browsers may keep it for ever."""
    return f"{HOME}/static/{name}?v={hashlib.sha256(_FILES[name][0]).hexdigest()[:12]}"


def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    for name in (
        "amount",
        "duration",
        "instant",
        "machine",
        "milliseconds",
        "number",
        "percent",
        "rate",
        "rates",
        "window",
    ):
        environment.filters[name] = getattr(formats, name)
    environment.tests["away"] = lambda value: isinstance(value, Away)
    environment.globals["static"] = {name: _address(name) for name in _FILES}
    environment.globals["home"] = HOME
    return environment


_templates = _environment()


def page(
    request: Request, template: str, context: Mapping[str, Any], *, status: int = 200
) -> HTMLResponse:
    """A page, with what all of them show.

    Args:
        request: what it answers.
        template: its name, without `.html`.
        context: what the template asks for.
        status: of the answer.
    """
    session: Session | None = getattr(request.state, "session", None)
    viewer: Principal | None = getattr(request.state, "principal", None)
    note = NOTES.get(request.cookies.get(_NOTE_COOKIE, ""))
    text = _templates.get_template(f"{template}.html").render(
        **context,
        viewer=viewer,
        form_token=session.form_token if session is not None else "",
        note=note,
        now=datetime.now(UTC),
    )
    response = HTMLResponse(text, status, headers=_PAGE)
    if note is not None:
        response.delete_cookie(_NOTE_COOKIE, path=HOME, httponly=True, samesite="strict")
    return response


def go(to: str, *, note: str | None = None) -> RedirectResponse:
    """To another page, so that loading it again repeats no form; `note` names what to say there."""
    response = RedirectResponse(to, 303, headers=_PAGE)
    if note is not None:
        response.set_cookie(
            _NOTE_COOKIE, note, max_age=60, path=HOME, httponly=True, samesite="strict"
        )
    return response


def picture(svg: bytes) -> Response:
    """A chart."""
    return Response(svg, headers=_PICTURE, media_type="image/svg+xml")


def static_file(name: str) -> Response | None:
    """A style sheet or the icon; None for what is none."""
    found = _FILES.get(name)
    return None if found is None else Response(found[0], headers=_STATIC, media_type=found[1])
