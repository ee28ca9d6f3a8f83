"""A durable quota as most would write it: a route, one row a tenant, SELECT FOR UPDATE."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI
from pydantic import BaseModel
from sqlalchemy import text
from sqlalchemy.ext.asyncio import create_async_engine

TENANTS = 1000
_SETUP = """
CREATE TABLE IF NOT EXISTS plain_quota (tenant text PRIMARY KEY, used bigint, quota bigint);
INSERT INTO plain_quota SELECT 'tenant-' || n, 0, 1000000000 FROM generate_series(0, {last}) AS n
ON CONFLICT DO NOTHING
"""
_READ = text("SELECT used, quota FROM plain_quota WHERE tenant = :tenant FOR UPDATE")
_WRITE = text("UPDATE plain_quota SET used = :used WHERE tenant = :tenant")


class Consumed(BaseModel):
    amount: int


def select_for_update() -> FastAPI:
    """The app; `drive` it with POST /tenants/{tenant}/consume."""
    url = os.environ["BENCH_DATABASE_URL"].replace("postgresql://", "postgresql+psycopg://")
    engine = create_async_engine(url, pool_size=20)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        async with engine.begin() as connection:
            await connection.exec_driver_sql(_SETUP.format(last=TENANTS - 1))
        yield
        await engine.dispose()

    app = FastAPI(lifespan=lifespan)

    @app.post("/tenants/{tenant}/consume")
    async def consume(tenant: str, consumed: Consumed) -> dict[str, object]:
        async with engine.begin() as connection:
            used, quota = (await connection.execute(_READ, {"tenant": tenant})).one()
            used += consumed.amount
            if used > quota:
                return {"allowed": False}
            await connection.execute(_WRITE, {"tenant": tenant, "used": used})
        return {"allowed": True, "used": used}

    return app
