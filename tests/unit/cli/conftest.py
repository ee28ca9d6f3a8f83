"""The command line in this process, away from this machine's environment and files."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest
from typer.testing import CliRunner, Result

from partywall_service.cli import app
from tests.unit.cli.fake_sidecar import FakeSidecar, serving


class Partywall(Protocol):
    """`partywall("tenants", "list")`."""

    def __call__(self, *arguments: str, stdin: str | bytes | None = None) -> Result: ...


@pytest.fixture(autouse=True)
def _nothing_around(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in list(os.environ):
        if name.startswith("PARTYWALL_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.chdir(tmp_path_factory.mktemp("nowhere"))


@pytest.fixture
def partywall() -> Partywall:
    def run(*arguments: str, stdin: str | bytes | None = None) -> Result:
        return CliRunner().invoke(
            app, list(arguments), input=stdin, prog_name="partywall", catch_exceptions=False
        )

    return run


@pytest.fixture
def quotas() -> Path:
    """The policy that ships with Partywall."""
    return Path(__file__).parents[3] / "quotas.toml"


@pytest.fixture
def fake_sidecar(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSidecar]:
    """Whom every command of this test talks to; it answers as its `reply` says."""
    with serving() as server:
        monkeypatch.setenv("PARTYWALL_SIDECAR_URL", f"http://127.0.0.1:{server.server_port}")
        monkeypatch.setenv("PARTYWALL_TOKEN", "a-token")
        yield server
