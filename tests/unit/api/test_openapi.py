"""The OpenAPI document: complete, and true to what is served."""

from typing import Any

import jsonschema_rs
import msgspec
import pytest

from partywall_service.api import create_api
from partywall_service.api.hot import HOT_ROUTES
from partywall_service.api.problems import CONTENT_TYPE, PROBLEMS, Problem
from tests.support.api import Caller

DOCUMENT: dict[str, Any] = create_api(hot_routes=HOT_ROUTES).openapi()
OPERATIONS = {
    f"{method.upper()} {path}": operation
    for path, operations in DOCUMENT["paths"].items()
    for method, operation in operations.items()
}
V1 = {name: operation for name, operation in OPERATIONS.items() if " /v1/" in name}


def test_every_operation_of_the_contract_is_there() -> None:
    assert set(V1) == {
        "POST /v1/check",
        "POST /v1/checks",
        "POST /v1/permits",
        "POST /v1/usage",
        "GET /v1/authz",
        "GET /v1/tenants",
        "POST /v1/tenants/import",
        "PUT /v1/tenants/{tenant}",
        "GET /v1/tenants/{tenant}",
        "DELETE /v1/tenants/{tenant}",
        "GET /v1/tenants/{tenant}/export",
        "GET /v1/tenants/{tenant}/overrides",
        "PUT /v1/tenants/{tenant}/overrides/{kind}/{name}",
        "DELETE /v1/tenants/{tenant}/overrides/{kind}/{name}",
        "GET /v1/tenants/{tenant}/quotas",
        "PUT /v1/tenants/{tenant}/quotas/{resource}",
        "POST /v1/tenants/{tenant}/quotas/consume",
        "POST /v1/tenants/{tenant}/quotas/release",
        "POST /v1/tenants/{tenant}/quotas/reserve",
        "POST /v1/tenants/{tenant}/quotas/reservations/{reservation}/commit",
        "POST /v1/tenants/{tenant}/quotas/reservations/{reservation}/cancel",
        "GET /v1/tenants/{tenant}/ledger",
        "GET /v1/tenants/{tenant}/preview",
        "POST /v1/tenants/{tenant}/jobs",
        "GET /v1/tenants/{tenant}/jobs",
        "GET /v1/tenants/{tenant}/jobs/{job_id}",
        "DELETE /v1/tenants/{tenant}/jobs/{job_id}",
        "POST /v1/tenants/{tenant}/jobs/{job_id}/retry",
        "POST /v1/tenants/{tenant}/jobs/pause",
        "POST /v1/tenants/{tenant}/jobs/resume",
        "POST /v1/tenants/{tenant}/jobs/purge",
        "GET /v1/queues",
        "POST /v1/tokens",
        "GET /v1/tokens",
        "DELETE /v1/tokens/{token}",
        "GET /v1/tenants/{tenant}/usage",
        "GET /v1/reports/usage",
        "GET /v1/reports/neighbors",
        "GET /v1/notices",
        "GET /v1/audit",
    }


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_says_what_it_is(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation["summary"]
    assert operation["operationId"]
    assert operation["tags"][0] in {tag["name"] for tag in DOCUMENT["tags"]}


def test_operation_ids_are_unique() -> None:
    ids = [operation["operationId"] for operation in OPERATIONS.values()]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("name", V1)
def test_an_operation_needs_a_token_and_documents_its_problems(name: str) -> None:
    operation = V1[name]
    assert operation["security"] == [{"bearer": []}, {"header": []}]
    responses = operation["responses"]
    assert responses.keys() >= {"401", "403", "413", "422", "503"}
    for status, response in responses.items():
        if not status.startswith("2"):
            (content_type,) = response["content"]
            assert content_type == CONTENT_TYPE
            schema = response["content"][CONTENT_TYPE]["schema"]
            assert schema == {"$ref": "#/components/schemas/Problem"}


def test_health_needs_no_token() -> None:
    assert "security" not in OPERATIONS["GET /healthz"]
    assert "security" not in DOCUMENT


def test_every_reference_leads_somewhere() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    text = msgspec.json.encode(DOCUMENT).decode()
    referred = {part.split('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert referred <= schemas.keys()
    assert "HTTPValidationError" not in schemas


def test_no_type_of_the_hot_endpoints_takes_another_s_name() -> None:
    others = create_api().openapi()["components"]["schemas"]
    schemas = DOCUMENT["components"]["schemas"]
    assert {name: schemas[name] for name in others} == others


@pytest.mark.parametrize("slug", PROBLEMS)
def test_a_problem_is_what_its_schema_says(slug: str) -> None:
    problem = Problem(slug, "because", errors=[{"field": "a", "reason": "b"}])
    schema = DOCUMENT["components"]["schemas"]["Problem"]
    jsonschema_rs.validate(schema, msgspec.json.decode(problem.body()))


def test_examples_are_what_their_schemas_say() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    shown = [name for name, schema in schemas.items() if schema.get("examples")]
    assert {"TenantChange", "OverrideChange", "TokenRequest"} <= set(shown)
    for name in shown:
        validator = jsonschema_rs.validator_for(
            {"$ref": f"#/components/schemas/{name}", "components": DOCUMENT["components"]}
        )
        for example in schemas[name]["examples"]:
            validator.validate(example)


def test_hot_endpoints_are_described_by_their_own_types() -> None:
    check = DOCUMENT["paths"]["/v1/check"]["post"]
    body = check["requestBody"]["content"]["application/json"]["schema"]
    assert body == {"$ref": "#/components/schemas/CheckRequest"}
    request = DOCUMENT["components"]["schemas"]["CheckRequest"]
    assert request["required"] == ["tenant"]
    assert request["additionalProperties"] is False
    answer = check["responses"]["200"]["content"]["application/json"]["schema"]
    assert answer == {"$ref": "#/components/schemas/Decision"}
    checks = DOCUMENT["paths"]["/v1/checks"]["post"]
    several = checks["responses"]["200"]["content"]["application/json"]["schema"]
    assert several["type"] == "array"


def test_without_hot_endpoints_the_document_stands_alone() -> None:
    document = create_api().openapi()
    assert "/v1/check" not in document["paths"]
    assert "Problem" in document["components"]["schemas"]


async def test_the_documents_need_no_token() -> None:
    nobody = Caller(create_api(), None)
    document = await nobody.get("/openapi.json")
    assert document.json()["info"]["title"] == "Partywall"
    page = await nobody.get("/docs")
    assert page.status_code == 200
    assert "/openapi.json" in page.text
