"""Routes of pages: who is looking, which forms are heard, and errors as pages."""

from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

import structlog
from fastapi import Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException

from partywall_service.api.deps import parts_of
from partywall_service.api.errors import problem_of
from partywall_service.api.problems import Problem
from partywall_service.dashboard.access import SIGN_IN, drop, from_elsewhere, session_of
from partywall_service.dashboard.pages import go, page

MOST_FIELDS = 20
FORM_TYPE = "application/x-www-form-urlencoded"

log = structlog.get_logger()


class PublicRoute(APIRoute):
    """A page for anybody. Whatever goes wrong in it is told as a page."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """FastAPI's own handler, once the caller is admitted."""
        handle = super().get_route_handler()

        async def told(request: Request) -> Response:
            try:
                if request.method == "POST":
                    request.state.form = await _form_of(request)
                return await self.admitted(request) or await handle(request)
            except Exception as exc:  # noqa: BLE001 - what nobody foresaw is logged there
                return _error_page(request, exc)

        return told

    async def admitted(self, request: Request) -> Response | None:
        """None where the request may go on; else its answer."""
        return None


class PageRoute(PublicRoute):
    """A page for who has signed in; `request.state` has the `principal` and the `session`."""

    async def admitted(self, request: Request) -> Response | None:
        """Looks the session up anew each time, so that a revoked token is out at once."""
        session = session_of(request)
        if session is None:
            return _to_sign_in(request)
        try:
            authenticator = parts_of(request).authenticator
            request.state.principal = await authenticator.authenticate(session.token)
        except Problem as problem:
            if problem.slug != "unauthenticated":
                raise
            answer = _to_sign_in(request)
            drop(request, answer)
            return answer
        request.state.session = session
        if request.method == "POST" and not session.sent(request.state.form.get("form_token")):
            raise Problem(
                "forbidden", "This form is not of your session any more. Go back and load it anew."
            )
        return None


async def _form_of(request: Request) -> FormData:
    """What a form of ours sent.

    Raises:
        Problem: it is another site's, or no form.
        HTTPException: it is too large.
    """
    if from_elsewhere(request):
        raise Problem("forbidden", "This form was sent by another site, so it was not heard.")
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != FORM_TYPE:
        raise Problem("invalid-request", f"expected a form, sent as {FORM_TYPE}")
    return await request.form(max_files=0, max_fields=MOST_FIELDS)


def _to_sign_in(request: Request) -> Response:
    if request.method != "GET":
        return go(SIGN_IN)
    asked = request.url.path + (f"?{request.url.query}" if request.url.query else "")
    to = f"{SIGN_IN}?next={quote(asked, safe='/')}"
    if not from_elsewhere(request):
        return go(to)
    # The browser keeps the cookie back while it follows another site's link, redirects included;
    # to a page of ours it sends it along, and the form goes on to what was asked for.
    answer = page(request, "arrival", {"to": to})
    answer.headers["Refresh"] = f"0; url={to}"
    return answer


def _error_page(request: Request, error: Exception) -> Response:
    try:
        problem = _problem_of(error)
    except Exception:
        # As the API's own guard, whose answer would be no page.
        log.exception("dashboard.fault", method=request.method, path=request.url.path)
        problem = Problem("internal", "The sidecar's log has it.")
    answer = page(
        request,
        "error",
        {"title": problem.title, "detail": problem.detail, "status": problem.status},
        status=problem.status,
    )
    for name in ("Retry-After", "Allow"):
        if name in problem.headers:
            answer.headers[name] = problem.headers[name]
    return answer


def _problem_of(error: Exception) -> Problem:
    if isinstance(error, RequestValidationError) and any(
        fault["loc"][0] == "path" for fault in error.errors()
    ):
        return Problem("not-found", "There is no such page.")
    if isinstance(error, HTTPException):
        if error.status_code == 413:
            return Problem("too-large", error.detail)
        return Problem("invalid-request", error.detail)
    return problem_of(error)
