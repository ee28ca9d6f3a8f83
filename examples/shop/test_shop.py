"""How a host app tests what its tenants may do: no server, and no waiting."""

from collections.abc import Iterator

import pytest
from app import app
from fastapi.testclient import TestClient
from login import token_of

from partywall.testing import FakeSidecar


@pytest.fixture
def merchant(sidecar: FakeSidecar) -> Iterator[TestClient]:
    """Acme's own program."""
    with TestClient(app, headers={"Authorization": f"Bearer {token_of('acme')}"}) as client:
        yield client


@pytest.fixture
def visitor(sidecar: FakeSidecar) -> Iterator[TestClient]:
    """Somebody in Acme's shop."""
    with TestClient(app, base_url="http://acme.shop.localhost") as client:
        yield client


def test_visitors_buy_from_the_merchant_whose_subdomain_it_is(
    visitor: TestClient, merchant: TestClient
) -> None:
    assert visitor.get("/").json() == "Welcome to acme!"
    assert visitor.post("/orders", json={"item": "tea"}).status_code == 201
    assert {"item": "tea", "amount": 1} in merchant.get("/orders").json()


def test_a_visitor_does_not_see_the_orders(visitor: TestClient) -> None:
    assert visitor.get("/orders").status_code == 401


def test_a_token_opens_no_other_merchants_shop(merchant: TestClient) -> None:
    assert merchant.get("http://other.shop.localhost/orders").status_code == 403


def test_a_merchant_over_its_limit_is_denied_for_a_minute(
    merchant: TestClient, sidecar: FakeSidecar
) -> None:
    assert [merchant.get("/orders").status_code for _ in range(61)] == [200] * 60 + [429]
    sidecar.advance(60)
    assert merchant.get("/orders").status_code == 200


def test_a_denied_merchant_is_told_where_a_bigger_plan_is_to_be_had(
    merchant: TestClient, sidecar: FakeSidecar
) -> None:
    sidecar.deny("acme", "requests", seconds=30)
    denied = merchant.get("/orders")
    assert denied.headers["Retry-After"] == "30"
    assert denied.json()["upgrade"] == "pro"
    assert denied.json()["pricing"] == "https://shop.example/pricing"


def test_a_catalogue_costs_as_much_as_five_tables(
    merchant: TestClient, sidecar: FakeSidecar
) -> None:
    merchant.post("/exports/orders.csv")
    merchant.post("/exports/orders.pdf")
    assert [(check.limit, check.cost) for check in sidecar.checks] == [
        ("exports", 1),
        ("exports", 5),
    ]


def test_analytics_are_for_the_pro_plan(merchant: TestClient, sidecar: FakeSidecar) -> None:
    lacking = merchant.get("/analytics")
    assert (lacking.status_code, lacking.json()["upgrade"]) == (402, "pro")
    sidecar.tenant("acme", tier="pro")
    assert merchant.get("/analytics").status_code == 200


def test_the_shop_stays_open_while_no_sidecar_answers(
    merchant: TestClient, sidecar: FakeSidecar
) -> None:
    sidecar.fail()
    assert merchant.get("/orders").status_code == 200
