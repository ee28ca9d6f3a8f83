"""A fake sidecar with the shop's own plans, in front of which the shop is tested."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from partywall.testing import FakeSidecar

os.environ["SHOP_JWT_SECRET"] = "a secret of these tests, and of nobody else"


@pytest.fixture
def sidecar() -> Iterator[FakeSidecar]:
    """The merchants are not registered, so they are on the free plan."""
    with FakeSidecar.from_toml(Path(__file__).with_name("quotas.toml")) as sidecar:
        yield sidecar
