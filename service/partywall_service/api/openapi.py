"""The OpenAPI document: FastAPI's own, with our problems, tokens and the hot endpoints in it."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from partywall_service.api.problems import CONTENT_TYPE, PROBLEMS, Problem
from partywall_service.api.raw import AUTHZ, COMMON, HotRoute
from partywall_service.names import NAME_PATTERN, TENANT_PATTERN
from partywall_service.policy.model import MAX_AMOUNT

Document = dict[str, Any]

TAGS = [
    {"name": "checks", "description": "May this tenant go on? A denial is a value: 200."},
    {"name": "tenants", "description": "Who there is, on which tier."},
    {"name": "overrides", "description": "One tenant's exceptions to its tier, which may expire."},
    {"name": "quotas", "description": "What a tenant holds, or uses in a calendar period."},
    {"name": "usage", "description": "What tenants did, by the minute, the hour and the day."},
    {"name": "jobs", "description": "What runs in the background, in turns that are fair."},
    {"name": "tokens", "description": "Who may call, and as what."},
    {"name": "audit", "description": "Who changed what."},
    {"name": "operations", "description": "For orchestrators and Prometheus."},
]

_REF = "#/components/schemas/{name}"
_SECURITY: list[dict[str, list[str]]] = [{"bearer": []}, {"header": []}]

_SECURITY_SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer", "description": "`Authorization: Bearer TOKEN`"},
    "header": {
        "type": "apiKey",
        "in": "header",
        "name": "X-Partywall-Token",
        "description": "For callers whose Authorization header is already taken.",
    },
}

_PROBLEM_SCHEMA = {
    "type": "object",
    "title": "Problem",
    "description": "An error (RFC 9457).",
    "required": ["type", "title", "status", "detail"],
    "properties": {
        "type": {
            "type": "string",
            "format": "uri-reference",
            "description": "`urn:partywall:problem:<slug>`; it does not change.",
        },
        "title": {"type": "string", "description": "The type, in words."},
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "detail": {"type": "string", "description": "What was expected, and what came."},
        "errors": {
            "type": "array",
            "description": "Of an invalid request: every fault that was found.",
            "items": {
                "type": "object",
                "required": ["field", "reason"],
                "properties": {"field": {"type": "string"}, "reason": {"type": "string"}},
            },
        },
    },
}

_HEADERS = {
    401: {"WWW-Authenticate": "How to present a token."},
    429: {"Retry-After": "Seconds."},
    503: {"Retry-After": "Seconds."},
}


def problems(*slugs: str) -> dict[int | str, dict[str, Any]]:
    """FastAPI's `responses=` for an endpoint: its own problems, and those all of them share."""
    return problem_responses((*COMMON, *slugs))


def problem_responses(slugs: Iterable[str]) -> dict[int | str, dict[str, Any]]:
    """OpenAPI responses, by status, of problems."""
    by_status: dict[int, list[Problem]] = {}
    for slug in dict.fromkeys(slugs):
        problem = Problem(slug, PROBLEMS[slug][1])
        by_status.setdefault(problem.status, []).append(problem)
    return {status: _response(status, by_status[status]) for status in sorted(by_status)}


def _response(status: int, alternatives: list[Problem]) -> dict[str, Any]:
    examples = {
        problem.slug: {"summary": problem.title, "value": msgspec.json.decode(problem.body())}
        for problem in alternatives
    }
    response: dict[str, Any] = {
        "description": " / ".join(problem.title for problem in alternatives),
        "content": {
            CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}, "examples": examples}
        },
    }
    if status in _HEADERS:
        response["headers"] = {
            name: {"description": text, "schema": {"type": "string"}, "required": True}
            for name, text in _HEADERS[status].items()
        }
    return response


def complete(document: Document, hot_routes: Iterable[HotRoute]) -> Document:
    """FastAPI's document, with what FastAPI cannot know; changed in place and returned."""
    components = document.setdefault("components", {})
    components.setdefault("schemas", {})["Problem"] = _PROBLEM_SCHEMA
    components["securitySchemes"] = _SECURITY_SCHEMES
    paths = document.setdefault("paths", {})
    merge_hot_routes(document, hot_routes)
    for path, operations in paths.items():
        if path.startswith("/v1/"):
            for operation in operations.values():
                operation["security"] = _SECURITY
    return document


def merge_hot_routes(document: Document, routes: Iterable[HotRoute]) -> None:
    """Describes the hot endpoints, which FastAPI never sees, from the types they are read by."""
    routes = tuple(routes)
    if not routes:
        return
    types = [
        kind
        for route in routes
        for kind in (route.request_type, route.response_type)
        if kind is not None
    ]
    schemas, components = msgspec.json.schema_components(types, ref_template=_REF)
    document["components"]["schemas"].update(components)
    described = dict(zip(map(id, types), schemas, strict=True))
    for route in routes:
        operation: dict[str, Any] = {
            "tags": [route.tag],
            "summary": route.summary,
            "operationId": f"hot_{route.path.rsplit('/', 1)[-1]}",
            "responses": {
                "200": _success(described.get(id(route.response_type))),
                **_as_json_keys(problem_responses(route.problems)),
            },
        }
        if route.description is not None:
            operation["description"] = route.description
        if route.parameters:
            operation["parameters"] = list(route.parameters)
        if route.request_type is not None:
            operation["requestBody"] = {
                "required": route.body_required,
                "content": {"application/json": {"schema": described[id(route.request_type)]}},
            }
        document["paths"].setdefault(route.path, {})[route.method.lower()] = operation
    document["paths"][AUTHZ] = {"get": _authz()}


def _success(schema: Mapping[str, Any] | None) -> dict[str, Any]:
    if schema is None:
        return {"description": "Done."}
    return {"description": "The answer.", "content": {"application/json": {"schema": schema}}}


def _as_json_keys(responses: Mapping[int | str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {str(status): response for status, response in responses.items()}


def _authz() -> dict[str, Any]:
    """`/v1/authz` has no body to take a type from: it speaks in headers."""

    def header(name: str, description: str, schema: dict[str, Any]) -> dict[str, Any]:
        required = name == "X-Tenant-ID"
        return {
            "name": name,
            "in": "header",
            "required": required,
            "description": description,
            "schema": schema,
        }

    return {
        "tags": ["checks"],
        "summary": "Decide for a gateway",
        "description": "For nginx auth_request, Traefik ForwardAuth, Caddy forward_auth and Envoy "
        "ext_authz over HTTP. Any method, and any path below this one, is answered alike.",
        "operationId": "hot_authz",
        "parameters": [
            header(
                "X-Tenant-ID", "The tenant's id.", {"type": "string", "pattern": TENANT_PATTERN}
            ),
            header(
                "X-Limit",
                "The limit; `requests` when left out or empty.",
                {"type": "string", "pattern": f"^({NAME_PATTERN.strip('^$')})?$"},
            ),
            header(
                "X-Cost",
                "What it costs; 1 when left out.",
                {"type": "integer", "minimum": 1, "maximum": MAX_AMOUNT},
            ),
            {
                "name": "deny",
                "in": "query",
                "required": False,
                "description": "The status of a denial, for gateways that know no 429.",
                "schema": {"type": "integer", "minimum": 400, "maximum": 499, "default": 429},
            },
        ],
        "responses": {
            "200": {"description": "Admitted, with the headers of a governed response."},
            "4XX": {
                "description": "Denied, with the headers of a governed response: 429, or the "
                "status that `deny` asked for.",
                "content": {CONTENT_TYPE: {"schema": {"$ref": _REF.format(name="Problem")}}},
            },
            **_as_json_keys(problem_responses((*COMMON, "unknown-limit"))),
        },
    }
