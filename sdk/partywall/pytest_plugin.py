"""The pytest fixture: `pytest_plugins = ["partywall.pytest_plugin"]` in your top conftest.py."""

from collections.abc import Iterator

import pytest

from partywall.testing import FakeSidecar


@pytest.fixture
def fake_sidecar() -> Iterator[FakeSidecar]:
    """A fake sidecar of this test alone, with the tiers of the quotas.toml that ships."""
    with FakeSidecar() as sidecar:
        yield sidecar
