"""In and out."""

from fastapi import APIRouter, Request, Response

from partywall_service.api.deps import Parts, PartsDep
from partywall_service.api.problems import Problem
from partywall_service.dashboard.access import (
    HOME,
    LONGEST_TOKEN,
    SIGN_IN,
    Session,
    drop,
    keep,
    next_page,
    session_of,
)
from partywall_service.dashboard.pages import go, page, static_file
from partywall_service.dashboard.routing import PageRoute, PublicRoute

_REFUSED = "That is not a token of this installation."

public = APIRouter(prefix=HOME, route_class=PublicRoute)
private = APIRouter(prefix=HOME, route_class=PageRoute)


@public.get("/sign-in")
async def ask_token(request: Request, parts: PartsDep) -> Response:
    """The form; who has signed in needs none."""
    asked = request.query_params.get("next")
    session = session_of(request)
    if session is not None and await _is_known(parts, session.token):
        return go(next_page(asked))
    return _form(request, asked)


@public.post("/sign-in")
async def sign_in(request: Request, parts: PartsDep) -> Response:
    """Begins a session, if the token is one."""
    form = request.state.form
    token = form.get("token")
    if not isinstance(token, str) or not 0 < len(token := token.strip()) <= LONGEST_TOKEN:
        return _form(request, form.get("next"), refused=_REFUSED)
    if not await _is_known(parts, token):
        return _form(request, form.get("next"), refused=_REFUSED)
    answer = go(next_page(form.get("next")))
    keep(request, answer, Session.begin(token))
    return answer


@private.post("/sign-out")
async def sign_out(request: Request) -> Response:
    """Ends the session in this browser; the token stays what it is."""
    answer = go(SIGN_IN, note="signed-out")
    drop(request, answer)
    return answer


@public.get("/static/{name}")
async def get_static(name: str) -> Response:
    """The style sheet and the icon."""
    found = static_file(name)
    if found is None:
        raise Problem("not-found", "There is no such file.")
    return found


async def _is_known(parts: Parts, token: str) -> bool:
    try:
        await parts.authenticator.authenticate(token)
    except Problem as problem:
        if problem.slug != "unauthenticated":
            raise
        return False
    return True


def _form(request: Request, asked: object, *, refused: str | None = None) -> Response:
    following = next_page(asked)
    return page(
        request,
        "sign_in",
        {
            "action": SIGN_IN,
            "following": following if following != HOME else "",
            "refused": refused,
        },
        status=403 if refused else 200,
    )
