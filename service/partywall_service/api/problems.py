"""RFC 9457 problem details: every error this API gives, and the one place that names them."""

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

CONTENT_TYPE = "application/problem+json"

PROBLEMS: Mapping[str, tuple[int, str]] = {
    "unauthenticated": (401, "A valid token is needed"),
    "forbidden": (403, "This is not allowed"),
    "unknown-tenant": (404, "No such tenant"),
    "unknown-limit": (404, "No tier names this limit"),
    "unknown-resource": (404, "No tier names this resource"),
    "unknown-reservation": (404, "No such reservation"),
    "unknown-override": (404, "No such override"),
    "unknown-job": (404, "No such job"),
    "unknown-token": (404, "No such token"),
    "not-found": (404, "Nothing here"),
    "method-not-allowed": (405, "Not this method"),
    "conflict": (409, "It conflicts with what is there"),
    "too-large": (413, "Too much in one request"),
    "invalid-request": (422, "The request is not understood"),
    "queue-full": (429, "As many jobs wait as may"),
    "internal": (500, "A fault of the sidecar's own"),
    "unavailable": (503, "Cannot answer now"),
}
"""Slug: status and title. `urn:partywall:problem:<slug>` is stable."""


class Problem(Exception):
    """An error answer. Raised anywhere below the API, rendered once.

    Args:
        slug: a key of `PROBLEMS`.
        detail: one sentence for a person: what was expected, what came.
        errors: for invalid requests, `{"field", "reason"}` of each fault.
        headers: further response headers, such as `Retry-After`.
        status: in place of the slug's own, where a gateway knows no other.
    """

    def __init__(
        self,
        slug: str,
        detail: str,
        *,
        errors: Sequence[Mapping[str, str]] | None = None,
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        default_status, self.title = PROBLEMS[slug]
        self.slug = slug
        self.detail = detail
        self.errors = errors
        self.headers = dict(headers or {})
        self.status = status or default_status
        if slug in ("unavailable", "queue-full"):
            self.headers.setdefault("Retry-After", "1")
        if slug == "unauthenticated":
            self.headers.setdefault("WWW-Authenticate", "Bearer")

    def body(self) -> bytes:
        """The problem as JSON."""
        document: dict[str, Any] = {
            "type": f"urn:partywall:problem:{self.slug}",
            "title": self.title,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors is not None:
            document["errors"] = self.errors
        return msgspec.json.encode(document)


def invalid(field: str, reason: str) -> Problem:
    """The `invalid-request` of one field; `reason` says what was expected and what came."""
    return Problem(
        "invalid-request", f"{field}: {reason}", errors=[{"field": field, "reason": reason}]
    )
