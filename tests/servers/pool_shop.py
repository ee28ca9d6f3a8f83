"""A host's database with one table under row-level security, for the tests of tenants' pools."""

import asyncio
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import psycopg

from partywall.pools import rls_statements
from tests.support.run import TestRun


class Shop(NamedTuple):
    """Its URL, as a superuser, and the role that sees one tenant's rows."""

    url: str
    role: str

    def fetch(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        """Runs a query as the superuser, who sees everything."""
        return fetch(self.url, query, *values)

    def refill(self) -> None:
        """Two orders of acme's and one of umbrella's, and nothing else."""
        self.fetch(
            "DELETE FROM orders;"
            " INSERT INTO orders VALUES (1, 'acme'), (2, 'acme'), (3, 'umbrella')"
        )

    def names(self) -> list[str]:
        """`application_name` of every connection that bears a tenant's."""
        return [name for name in self.all_names() if name.startswith("partywall:")]

    def all_names(self) -> list[str]:
        """`application_name` of every connection but the one that asks."""
        query = (
            "SELECT application_name FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid() ORDER BY 1"
        )
        return [name for (name,) in self.fetch(query)]

    async def names_become(self, names: list[str]) -> None:
        await become(self.names, names)


async def become(ask: Callable[[], list[str]], names: list[str]) -> None:
    """Waits until that is the answer; a server takes a moment to notice who has gone."""
    while ask() != names:  # noqa: ASYNC110 - nothing tells when a server has noticed
        await asyncio.sleep(0.01)


def fetch(url: str, query: str, *values: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as connection:
        cursor = connection.execute(query.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def opened_shop(run: TestRun) -> Iterator[Shop]:
    """A database and a role, until the end of the block."""
    shop = Shop(run.create_database(), f"tenant_{uuid.uuid4().hex[:12]}")
    shop.fetch("CREATE TABLE orders (id int PRIMARY KEY, tenant_id text NOT NULL)")
    for statement in rls_statements("orders"):
        shop.fetch(statement)
    shop.fetch(f"CREATE ROLE {shop.role}")
    shop.fetch(f"GRANT SELECT, INSERT, UPDATE, DELETE ON orders TO {shop.role}")
    yield shop
    run.drop_database(shop.url)
    fetch(run.postgres.url, f"DROP ROLE {shop.role}")
