"""A shop system for many merchants, each of whom is a tenant. README.md says how to run it.

Visitors come to a merchant's subdomain, a merchant's own programs show a signed token; both are
charged to the merchant.
"""

import os
from collections import defaultdict
from typing import Annotated

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from msgspec.structs import replace
from pydantic import BaseModel, PositiveInt

from partywall import Denial, PartywallMiddleware, Rule, current_tenant
from partywall.fastapi import document, feature
from partywall.responses import Scope
from partywall.tenants import FromJWT, FromSubdomain

signed_token = FromJWT(key=os.environ["SHOP_JWT_SECRET"], claim="merchant")


class Order(BaseModel):
    """What a visitor bought."""

    item: str
    amount: PositiveInt = 1


class Bestseller(BaseModel):
    """An item, and how many of it were sold."""

    item: str
    sold: int


def merchant(request: Request) -> str:
    """The merchant who asks, shown by a token: a subdomain says only who is asked for."""
    # The middleware has verified it a moment ago; to ask again is a look-up.
    if signed_token(request.scope) is None:
        raise HTTPException(401, "Show a merchant's token.", {"WWW-Authenticate": "Bearer"})
    return current_tenant().id


def with_pricing(scope: Scope, denial: Denial) -> Denial | None:
    """Says where a bigger plan is to be had, where one would have helped."""
    if "upgrade" not in denial.problem:
        return None
    return replace(denial, problem={**denial.problem, "pricing": "https://shop.example/pricing"})


Merchant = Annotated[str, Depends(merchant)]

orders: defaultdict[str, list[Order]] = defaultdict(list)

app = FastAPI(title="Shop")
app.add_middleware(
    PartywallMiddleware,
    tenant=[signed_token, FromSubdomain("shop.localhost")],
    limit="requests",
    rules=[
        Rule("/exports/*.pdf", limit="exports", cost=5),
        Rule("/exports/*", limit="exports"),
    ],
    exempt=["/healthz"],
    on_denial=with_pricing,
)
document(app)


@app.get("/healthz")
async def healthz() -> str:
    """For the load balancer, which is nobody's tenant."""
    return "ok"


@app.get("/")
async def storefront() -> str:
    """For visitors."""
    return f"Welcome to {current_tenant()}!"


@app.post("/orders", status_code=201)
async def buy(order: Order) -> Order:
    """For visitors."""
    orders[current_tenant().id].append(order)
    return order


@app.get("/orders")
async def list_orders(merchant: Merchant) -> list[Order]:
    """For the merchant."""
    return orders[merchant]


@app.post("/exports/orders.csv")
async def export_csv(merchant: Merchant) -> Response:
    """For the merchant: cheap, one unit of its exports."""
    lines = ["item,amount", *(f"{order.item},{order.amount}" for order in orders[merchant])]
    return Response("\n".join(lines), media_type="text/csv")


@app.post("/exports/orders.pdf")
async def export_pdf(merchant: Merchant) -> str:
    """For the merchant: what keeps a processor busy for a while, five units of its exports."""
    return f"a catalogue of {len(orders[merchant])} orders"


@app.get("/analytics", dependencies=[Depends(feature("analytics"))])
async def analytics(merchant: Merchant) -> list[Bestseller]:
    """For merchants whose plan has analytics."""
    sold: defaultdict[str, int] = defaultdict(int)
    for order in orders[merchant]:
        sold[order.item] += order.amount
    ranked = sorted(sold.items(), key=lambda pair: -pair[1])
    return [Bestseller(item=item, sold=amount) for item, amount in ranked]
