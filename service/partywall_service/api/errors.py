"""Everything that can go wrong in a handler, rendered as a problem (RFC 9457)."""

from collections.abc import Iterable, Mapping
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from partywall_service.api.hot_quotas import quota_problem_of
from partywall_service.api.job_problems import job_problem_of
from partywall_service.api.problems import CONTENT_TYPE, Problem, invalid
from partywall_service.api.request_ids import fields_of
from partywall_service.api.schemas import MEANINGS
from partywall_service.engine.base import StoreError
from partywall_service.ledger import LedgerUnavailable
from partywall_service.quotas.errors import QuotaError
from partywall_workers.errors import JobError, QueueUnavailable

log = structlog.get_logger()

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
_LONGEST = 200
_LONGEST_INPUT = 60


_FORESEEN = (Problem, LedgerUnavailable, StoreError, QuotaError, JobError, RequestValidationError)


def install(api: FastAPI) -> None:
    """Makes every error of `api` a problem; `Guard` catches the ones nobody foresaw."""
    for kind in _FORESEEN:
        api.add_exception_handler(kind, _problem)
    api.add_exception_handler(HTTPException, _http)


def problem_of(error: Exception) -> Problem:
    """What an error is told as.

    Raises:
        Exception: the error itself, where nobody foresaw it.
    """
    match error:
        case Problem():
            return error
        case LedgerUnavailable():
            log.warning("api.ledger_unavailable", error=str(error))
            return Problem("unavailable", "the database does not answer now; try again")
        case StoreError():
            log.warning("api.store_unavailable", error=str(error))
            return Problem("unavailable", "Redis does not answer now; try again")
        case QuotaError():
            return quota_problem_of(error)
        case JobError():
            if isinstance(error, QueueUnavailable):
                log.warning("api.queue_unavailable", error=str(error))
            return job_problem_of(error)
        case RequestValidationError():
            return _invalid(error)
        case _:
            raise error


def response_of(problem: Problem) -> Response:
    """The problem as an HTTP response."""
    return Response(
        problem.body(),
        status_code=problem.status,
        headers=problem.headers,
        media_type=CONTENT_TYPE,
    )


class Guard:
    """Answers what no handler foresaw: logged whole, told to the client without its insides.

    Outermost, because Starlette's own would log the same once more through the server.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched(message: Message) -> None:
            nonlocal started
            started = started or message["type"] == "http.response.start"
            await send(message)

        try:
            await self.app(scope, receive, watched)
        except Exception:
            log.exception("api.fault", **fields_of(scope))
            if started:
                raise  # half an answer is out: only the server can end the connection
            problem = Problem("internal", "an unforeseen fault; the sidecar's log has it")
            await response_of(problem)(scope, receive, send)


async def _problem(_: Request, exc: Exception) -> Response:
    return response_of(problem_of(exc))


async def _http(request: Request, exc: Exception) -> Response:
    """What Starlette and FastAPI raise by themselves."""
    if not isinstance(exc, HTTPException):
        raise exc
    match exc.status_code:
        case 400:  # FastAPI: the body is no JSON that Python can hold
            reason = "expected JSON in UTF-8, nested no deeper than a few hundred levels"
            problem = invalid("body", reason)
        case 404:
            problem = Problem("not-found", "no such path; /openapi.json names them all")
        case 405:
            allow = ", ".join(_allowed(request))
            problem = Problem(
                "method-not-allowed",
                f"expected one of {allow}; got {request.method[:20]}",
                headers={"Allow": allow},
            )
        case 413:
            problem = Problem("too-large", exc.detail)
        case _:
            raise exc
    return response_of(problem)


def _allowed(request: Request) -> list[str]:
    """The methods of this path. Starlette names only those of the first route that matches.

    A word that may be a tenant's id, too, is a path of its own: its router's methods count.
    """

    def match(routed: BaseRoute, method: str) -> Match:
        return routed.matches({**request.scope, "method": method})[0]

    first = next(one for one in request.app.routes if match(one, request.method) is not Match.NONE)
    return [method for method in _METHODS if match(first, method) is Match.FULL]


def _invalid(error: RequestValidationError) -> Problem:
    faults = faults_of(error.errors())
    detail = "; ".join(f"{fault['field']}: {fault['reason']}" for fault in faults[:3])
    if len(faults) > 3:
        detail += f"; and {len(faults) - 3} more"
    return Problem("invalid-request", detail, errors=faults)


def faults_of(errors: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Pydantic's errors as `{"field", "reason"}`, each once, safe to print and to encode."""
    faults = [{"field": _field(error), "reason": _reason(error)} for error in errors]
    return list({(fault["field"], fault["reason"]): fault for fault in faults}.values())


def _field(error: Mapping[str, Any]) -> str:
    where, *inner = error["loc"]
    if not inner or error["type"] == "json_invalid":
        return str(where)
    return _printable(".".join(str(part) for part in inner))


def _reason(error: Mapping[str, Any]) -> str:
    match error["type"]:
        case "value_error":  # our own validators: they say it all
            return _printable(str(error["ctx"]["error"]))
        case "missing":
            return "expected a value; got none"
        case "extra_forbidden":
            return "expected no field of this name"
        case "json_invalid":
            return f"expected JSON; at character {error['loc'][1]}: {error['ctx']['error']}"
        case "model_attributes_type":
            return "expected a JSON object, sent with content-type: application/json"
        case "string_pattern_mismatch":
            pattern = error["ctx"]["pattern"]
            expected = f"expected {MEANINGS.get(pattern, f'text that matches {pattern}')}"
        case _:
            expected = (
                error["msg"]
                .replace("Input should be", "expected")
                .replace("String should have", "expected")
            )
    return _printable(f"{expected}; got {_shown(error['input'])}")


def _shown(value: object) -> str:
    text = ascii(value)
    return text if len(text) <= _LONGEST_INPUT else f"{text[:_LONGEST_INPUT]}..."


def _printable(text: str) -> str:
    """Short enough for a log line, and UTF-8 whatever the client sent."""
    clipped = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return clipped.encode("utf-8", "backslashreplace").decode()
