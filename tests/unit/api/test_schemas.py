"""Bodies: what is understood, what is refused, and in which words."""

import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ValidationError

from partywall_service.api.errors import faults_of
from partywall_service.api.schemas import (
    OverrideChange,
    Tenant,
    TenantChange,
    TokenRequest,
)
from partywall_service.ledger import TenantRecord
from tests.support.api import policy

OVERRIDE = {"value": "500/minute", "reason": "launch"}
CONTROL = ["\x00", "\n", "\x1f", "\x7f", "\x85", "\x9f"]


def faults(model: type[BaseModel], body: object) -> list[dict[str, str]]:
    """What the API would say of a body, located as FastAPI locates it."""
    try:
        model.model_validate(body)
    except ValidationError as exc:
        return faults_of([{**error, "loc": ("body", *error["loc"])} for error in exc.errors()])
    return []


def fault(model: type[BaseModel], body: object) -> tuple[str, str]:
    """The one fault of a body."""
    (only,) = faults(model, body)
    return only["field"], only["reason"]


def test_a_tenant_needs_only_a_tier() -> None:
    change = TenantChange.model_validate({"tier": "pro"})
    assert (change.name, change.domains, change.status) == (None, None, None)


def test_every_fault_is_found_at_once() -> None:
    body = {"name": 7, "domains": ["ok.example", "not ok"], "status": "gone", "colour": "red"}
    assert faults(TenantChange, body) == [
        {"field": "tier", "reason": "expected a value; got none"},
        {"field": "name", "reason": "expected a valid string; got 7"},
        {
            "field": "domains.1",
            "reason": "expected a host name of letters, digits, '-' and '.'; got 'not ok'",
        },
        {
            "field": "status",
            "reason": "expected 'provisioning', 'active' or 'suspended'; got 'gone'",
        },
        {"field": "colour", "reason": "expected no field of this name"},
    ]


@pytest.mark.parametrize("text", ["", " ", "\u3000", "x" * 201, *(f"a{c}b" for c in CONTROL)])
def test_a_name_is_one_line_that_can_be_seen(text: str) -> None:
    assert fault(TenantChange, {"tier": "pro", "name": text})[0] == "name"
    assert fault(TokenRequest, {"scope": "host", "name": text})[0] == "name"


@pytest.mark.parametrize("text", ["", " ", "x" * 501, *(f"a{c}b" for c in CONTROL)])
def test_a_reason_is_given(text: str) -> None:
    assert fault(OverrideChange, OVERRIDE | {"reason": text})[0] == "reason"


@pytest.mark.parametrize(
    "text", ["x", "x" * 200, "Łódź & Søn 株式会社 🎉", "Robert'); DROP TABLE--"]
)
def test_people_may_write_as_they_do(text: str) -> None:
    assert TenantChange.model_validate({"tier": "pro", "name": text}).name == text


@pytest.mark.parametrize(
    ("text", "where"),
    [(r'{"tier": "pro", "name": "\ud800"}', "name"), (r'{"tier": "pro", "\ud800": 1}', "body")],
)
def test_half_a_surrogate_pair_is_refused_and_can_be_reported(text: str, where: str) -> None:
    field, reason = fault(TenantChange, json.loads(text))
    assert field == where
    assert "ud800" in reason
    assert reason.encode()  # so it can be sent


def test_host_names_are_kept_once_in_lower_case() -> None:
    body = {"tier": "pro", "domains": ["App.Acme.Example", "app.acme.example", "localhost"]}
    assert TenantChange.model_validate(body).domains == ["app.acme.example", "localhost"]


@pytest.mark.parametrize(
    "domain",
    [
        "",
        ".",
        "acme.example.",
        ".acme.example",
        "acme..example",
        "acme.example:8080",
        "http://acme.example",
        "acme.example/path",
        "-acme.example",
        "acme-.example",
        "a_b.example",
        "bücher.example",
        "*.acme.example",
        "acme.example\n",
        "a" * 64 + ".example",
        ".".join(["a" * 49] * 6),
        7,
        None,
    ],
)
def test_what_is_no_host_name_is_refused(domain: object) -> None:
    assert fault(TenantChange, {"tier": "pro", "domains": [domain]})[0] == "domains.0"


def test_a_tenant_has_at_most_a_hundred_domains() -> None:
    domains = [f"d{n}.example" for n in range(101)]
    assert not faults(TenantChange, {"tier": "pro", "domains": domains[:100]})
    assert fault(TenantChange, {"tier": "pro", "domains": domains})[0] == "domains"


@pytest.mark.parametrize("tier", ["", "a" * 65, ".pro", "pro ", "pro\n", "pró", 1, None, ["pro"]])
def test_a_tier_is_a_name(tier: object) -> None:
    assert fault(TenantChange, {"tier": tier})[0] == "tier"


@pytest.mark.parametrize("scope", ["admin", "host", "tenant:acme", "tenant:A-1._z"])
def test_scopes(scope: str) -> None:
    assert TokenRequest.model_validate({"scope": scope, "name": "n"}).scope == scope


@pytest.mark.parametrize(
    "scope",
    ["", "Admin", "admin ", "host:acme", "tenant", "tenant:", "tenant:a b", "tenant:" + "a" * 129],
)
def test_other_scopes_are_refused(scope: str) -> None:
    assert fault(TokenRequest, {"scope": scope, "name": "n"}) == (
        "scope",
        f"expected admin, host or tenant:<id>; got {scope[:60]!r}"
        if len(scope) < 59
        else f"expected admin, host or tenant:<id>; got {ascii(scope)[:60]}...",
    )


@pytest.mark.parametrize("value", ["500/minute", "unlimited", "5 GiB", -1, 0, 50, 2**53 - 1])
def test_an_override_is_a_text_or_a_whole_number(value: object) -> None:
    assert OverrideChange.model_validate(OVERRIDE | {"value": value}).value == value


@pytest.mark.parametrize(
    "value", [True, 1.0, 1.5, None, [], {}, -2, 2**53, 10**4000, "", "x" * 201, "1\x00"]
)
def test_other_values_are_refused_with_one_fault(value: object) -> None:
    assert fault(OverrideChange, OVERRIDE | {"value": value})[0] == "value"


@pytest.mark.parametrize(
    ("text", "instant"),
    [
        ("2098-01-31T12:00:00Z", datetime(2098, 1, 31, 12, tzinfo=UTC)),
        ("2098-01-31t12:00:00z", datetime(2098, 1, 31, 12, tzinfo=UTC)),
        ("2098-01-31T12:00:00.25+02:00", datetime(2098, 1, 31, 10, 0, 0, 250000, tzinfo=UTC)),
        ("2098-01-31T12:00:00.123456789Z", datetime(2098, 1, 31, 12, 0, 0, 123456, tzinfo=UTC)),
        ("9998-12-31T23:59:59-00:00", datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)),
    ],
)
def test_instants_are_rfc_3339_and_become_utc(text: str, instant: datetime) -> None:
    assert OverrideChange.model_validate(OVERRIDE | {"expires_at": text}).expires_at == instant


@pytest.mark.parametrize(
    "text",
    [
        "2098-01-31T12:00:00",  # no offset
        "2098-01-31",
        "2098-01-31 12:00:00Z",
        "20980131T120000Z",
        "2098-02-30T12:00:00Z",
        "2098-01-31T25:00:00Z",
        "2098-01-31T12:00:00+99:00",
        "0001-01-01T00:00:00+14:00",  # before any year
        "9999-12-31T23:59:59-14:00",  # after every year
        "9999-12-31T23:59:59Z",  # no driver carries it into every zone
        "\N{FULLWIDTH DIGIT TWO}098-01-31T12:00:00Z",
        "2098-01-31T12:00:00Z\n",
        "2001-01-01T00:00:00Z",  # gone
        "",
        "x" * 100_000,
        4070908800,
        True,
        [],
    ],
)
def test_other_instants_are_refused(text: object) -> None:
    field, reason = fault(OverrideChange, OVERRIDE | {"expires_at": text})
    assert field == "expires_at"
    assert reason.startswith("expected an")
    assert len(reason) < 250


def test_an_override_may_last() -> None:
    assert OverrideChange.model_validate(OVERRIDE | {"expires_at": None}).expires_at is None


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.parametrize("model", [TenantChange, OverrideChange, TokenRequest])
@given(data=st.data())
def test_whatever_comes_is_read_or_reported(model: type[BaseModel], data: st.DataObject) -> None:
    names = [*model.model_fields, "other"]
    body = data.draw(st.dictionaries(st.sampled_from(names), json_values) | json_values)
    for found in faults(model, body):
        assert "\n".join(found.values()).encode()


def record(**changes: Any) -> TenantRecord:
    values: dict[str, Any] = {
        "tenant": "acme",
        "name": "Acme",
        "tier": "pro",
        "status": "active",
        "domains": ("acme.example",),
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
        "updated_at": datetime(2026, 1, 2, 3, tzinfo=timezone(timedelta(hours=2))),
    }
    return TenantRecord(**values | changes)


def test_a_tenant_is_written_with_its_tiers_features_and_in_utc() -> None:
    assert json.loads(Tenant.of(record(), policy()).model_dump_json()) == {
        "tenant": "acme",
        "name": "Acme",
        "tier": "pro",
        "status": "active",
        "domains": ["acme.example"],
        "features": ["advanced-analytics"],
        "created_at": "2026-01-01T00:00:00Z",
        "updated_at": "2026-01-02T01:00:00Z",
    }


def test_a_tier_that_is_gone_from_the_policy_has_no_features() -> None:
    assert Tenant.of(record(tier="retired"), policy()).features == []
