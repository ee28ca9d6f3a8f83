"""One sidecar for all tests that only ask, and host apps on whichever sidecars."""

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Protocol

import httpx
import pytest

from tests.support.host import Host
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

ASKED_QUOTAS = """
[tiers.free]
[tiers.free.limits]
requests = "5/minute"
exports = ["2/second", "10/minute", "100/hour"]
observed = { rate = "2/minute", enforce = false }
huge = "9007199254740991/minute"

[tiers.pro]
extends = "free"
features = ["advanced-analytics"]
limits = { requests = "50/minute", uploads = "7/minute" }

[tiers.enterprise]
extends = "pro"
limits = { requests = "unlimited" }
"""
"""No default tier, so that an unregistered tenant is unknown. `uploads` is named by pro alone."""


@pytest.fixture(scope="session")
def asked_sidecar(test_run: TestRun) -> Iterator[Sidecar]:
    """A sidecar with `ASKED_QUOTAS`; each test brings tenants of its own."""
    with shared_sidecars(test_run, ASKED_QUOTAS) as (one,):
        yield one


@pytest.fixture
async def asked(asked_sidecar: Sidecar) -> AsyncIterator[httpx.AsyncClient]:
    """Its admin's client."""
    async with asked_sidecar.client() as client:
        yield client


class HostsFactory(Protocol):
    """`hosts(...)`: start some and wait until they answer."""

    def __call__(self, *sidecars: str, token: str = ADMIN_TOKEN, **options: object) -> list[Host]:
        """Start one host app for each URL of a sidecar."""
        ...


@pytest.fixture
def hosts(test_run: TestRun) -> Iterator[HostsFactory]:
    """Start host apps, one for each sidecar's URL, stopped at the end; their logs show on failure.

    `options` are the middleware's own, and those of `tests.support.host_app`.
    """
    made: list[Host] = []

    def make(*sidecars: str, token: str = ADMIN_TOKEN, **options: object) -> list[Host]:
        started = [Host(test_run.fresh_dir("host"), url, token, **options) for url in sidecars]
        made.extend(started)
        for one in started:
            one.start(ready=False)
        for one in started:
            one.await_ready()
        return started

    yield make
    with contextlib.ExitStack() as stack:
        for one in made:
            stack.callback(one.close)
    for one in made:
        print(f"--- host {one.url} ---\n{one.log}")  # noqa: T201 - shown on failure
