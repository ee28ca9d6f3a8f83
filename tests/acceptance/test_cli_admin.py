"""The admin's daily work from the command line, on a real sidecar."""

import json
import os
import pty
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from typer.testing import CliRunner, Result

from partywall_service.cli import app, client
from tests.conftest import SidecarFactory
from tests.support.run import TestRun
from tests.support.sidecar import ADMIN_TOKEN


@pytest.fixture
def at(sidecar: SidecarFactory, monkeypatch: pytest.MonkeyPatch) -> str:
    """A sidecar that every command of this test talks to."""
    url = sidecar().url
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", url)
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    monkeypatch.setenv("COLUMNS", "80")
    return url


def partywall(*arguments: str) -> Result:
    return CliRunner().invoke(app, list(arguments), prog_name="partywall", catch_exceptions=False)


def done(*arguments: str) -> str:
    """What a command printed that did what it was asked."""
    result = partywall(*arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def read(*arguments: str) -> Any:
    return json.loads(done(*arguments, "--format", "json"))


@pytest.mark.usefixtures("at")
def test_a_tenants_life() -> None:
    said = partywall("tenants", "set", "acme", "--tier", "free", "--name", "Acme Ltd")
    assert (said.stdout, said.stderr) == ("", "acme is registered: tier free, active\n")
    done("tenants", "set", "acme", "--domain", "acme.example", "--domain", "acme.test")
    done("tenants", "set", "acme", "--tier", "pro")
    done("tenants", "set", "acme", "--status", "suspended")
    shown = read("tenants", "show", "acme")
    assert (shown["name"], shown["tier"], shown["status"]) == ("Acme Ltd", "pro", "suspended")
    assert shown["domains"] == ["acme.example", "acme.test"]
    table = done("tenants", "show", "acme")
    assert "acme.example, acme.test" in table
    assert shown["created_at"][:19].replace("T", " ") in table
    done("tenants", "set", "acme", "--no-domains")
    assert read("tenants", "show", "acme")["domains"] == []

    done("tenants", "delete", "acme", "--yes")
    done("tenants", "delete", "acme", "-y")  # there is none any more, as was asked
    gone = partywall("tenants", "show", "acme")
    assert (gone.exit_code, gone.stderr) == (1, "tenant 'acme' is not registered\n")


@pytest.mark.usefixtures("at")
def test_a_list_has_every_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAGE_SIZE", 2)
    for n in range(5):
        done("tenants", "set", f"t{n}", "--tier", "pro" if n % 2 else "free", "--domain", f"{n}.x")
        done("tokens", "create", "--name", f"n{n}")
        reason = ("--reason", "test")
        done(
            "overrides",
            "set",
            "t0",
            "quotas",
            ("users", "projects", "storage")[n % 3],
            "9",
            *reason,
        )
    listed = read("tenants", "list")
    assert [tenant["tenant"] for tenant in listed["tenants"]] == ["t0", "t1", "t2", "t3", "t4"]
    assert listed["next_cursor"] is None
    assert {token["name"] for token in read("tokens", "list")["tokens"]} == {
        f"n{n}" for n in range(5)
    }
    names = [one["name"] for one in read("overrides", "list", "t0")["overrides"]]
    assert names == ["projects", "storage", "users"]
    assert [
        row.split()[:3] for row in done("tenants", "list", "--tier", "pro").splitlines()[2:]
    ] == [
        ["t1", "pro", "active"],
        ["t3", "pro", "active"],
    ]
    assert [
        tenant["tenant"] for tenant in read("tenants", "list", "--domain", "4.x")["tenants"]
    ] == ["t4"]
    assert read("tenants", "list", "--status", "suspended")["tenants"] == []


@pytest.mark.usefixtures("at")
def test_an_overrides_life() -> None:
    done("tenants", "set", "acme", "--tier", "free")
    launch = ("--reason", "launch [day]", "--for", "2h")
    said = partywall("overrides", "set", "acme", "limits", "requests", "500/minute", *launch)
    assert said.stderr.startswith("acme has limits.requests = 500/minute until 20")
    done("overrides", "set", "acme", "quotas", "storage", "5 GiB", "--reason", "contract")
    until = ("--reason", "x", "--expires-at", "2098-01-31T12:00:00Z")
    done("overrides", "set", "acme", "jobs", "concurrency", "7", *until)

    jobs, limits, quotas = read("overrides", "list", "acme")["overrides"]
    left = datetime.fromisoformat(limits["expires_at"]) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=50) < left <= timedelta(hours=2)
    assert (jobs["value"], jobs["expires_at"]) == (7, "2098-01-31T12:00:00Z")
    assert (quotas["value"], quotas["expires_at"]) == ("5 GiB", None)
    table = done("overrides", "list", "acme")
    assert "launch [day]" in table
    assert max(map(len, table.splitlines())) <= 80

    done("overrides", "delete", "acme", "limits", "requests")
    assert len(read("overrides", "list", "acme")["overrides"]) == 2


def test_a_token_is_alone_on_stdout_and_works_until_it_is_revoked(
    at: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = partywall("tokens", "create", "--scope", "host", "--name", "the [shop]")
    token = made.stdout.strip()
    assert made.stdout == f"{token}\n"
    assert token.isprintable()
    assert token not in made.stderr
    [listed] = read("tokens", "list")["tokens"]
    assert (listed["scope"], listed["name"]) == ("host", "the [shop]")
    assert "the [shop]" in done("tokens", "list")
    assert token not in done("tokens", "list")

    monkeypatch.setenv("PARTYWALL_TOKEN", token)
    assert read("tenants", "list")["tenants"] == []
    refused = partywall("tokens", "list")
    assert refused.exit_code == 1
    assert refused.stderr.count("\n") == 1
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    done("tokens", "revoke", listed["id"])
    again = partywall("tokens", "revoke", listed["id"])
    assert again.exit_code == 1
    assert listed["id"] in again.stderr
    monkeypatch.setenv("PARTYWALL_TOKEN", token)
    unknown = partywall("tenants", "list")
    assert unknown.exit_code == 1
    assert unknown.stderr == f"the sidecar at {at} does not take the token from PARTYWALL_TOKEN\n"


REFUSED = {
    "tenants set acme --tier gold": "tier: expected one of free, pro, enterprise",
    "tenants set nobody --status active": "'nobody' is not registered: give --tier",
    "tenants set acme --tier free --domain not_a_host!": "domains",
    "tenants list --domain !": "domain",
    "overrides list nobody": "tenant 'nobody' is not registered",
    "overrides set nobody limits requests 1/day --reason x": "'nobody' is not registered",
    "overrides set acme limits nope 1/day --reason x": "nope",
    "overrides set acme limits requests often --reason x": "value: expected",
    "overrides set acme limits requests 1/day --reason x --expires-at soon": "expires_at",
    "overrides delete acme limits requests": "has no override of limits 'requests'",
    "tokens create --name x --scope root": "scope",
    "tokens revoke nothing": "'nothing'",
}


@pytest.mark.usefixtures("at")
def test_what_the_sidecar_refuses_is_one_sentence() -> None:
    done("tenants", "set", "acme", "--tier", "free")
    for arguments, said in REFUSED.items():
        result = partywall(*arguments.split())
        assert (result.exit_code, result.stdout) == (1, ""), arguments
        assert said in result.stderr
        assert result.stderr.count("\n") == 1


@pytest.mark.usefixtures("at")
def test_delete_asks_on_a_terminal() -> None:
    done("tenants", "set", "acme", "--tier", "free")
    for answer, code, left in (("n", 1, 1), ("", 1, 1), ("y", 0, 0)):
        terminal, end = pty.openpty()
        os.write(terminal, f"{answer}\n".encode())
        process = subprocess.run(
            [sys.executable, "-m", "partywall_service", "tenants", "delete", "acme"],
            stdin=end,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        os.close(end)
        os.close(terminal)
        assert (process.returncode, process.stdout.strip()) == (code, "")
        assert "Erase acme and everything kept about it?" in process.stderr
        assert ("nothing was changed" in process.stderr) is (code == 1)
        assert len(read("tenants", "list")["tenants"]) == left


def test_a_fresh_installation_needs_no_setting(
    sidecar: SidecarFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after `make run`: the token is found where serve keeps it, the sidecar by its port."""
    one = sidecar(env={"PARTYWALL_ADMIN_TOKEN": None})
    for name in ("PARTYWALL_TOKEN", "PARTYWALL_ADMIN_TOKEN", "PARTYWALL_SIDECAR_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PARTYWALL_DATA_DIR", str(one.directory / "data"))
    monkeypatch.setenv("PARTYWALL_PORT", one.url.rpartition(":")[2])
    done("tenants", "set", "acme", "--tier", "free")
    assert len(read("tenants", "list")["tenants"]) == 1


def test_db_upgrade_makes_an_empty_database_whole_and_may_be_repeated(
    test_run: TestRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    with psycopg.connect(test_run.postgres.url, autocommit=True) as admin:
        admin.execute("CREATE DATABASE upgraded_by_the_command_line")
    url = test_run.postgres.url_of("upgraded_by_the_command_line")
    try:
        monkeypatch.setenv("PARTYWALL_DATABASE_URL", "postgresql://127.0.0.1:1/none")
        for _ in range(2):
            said = partywall("db", "upgrade", "--database-url", url)
            assert (said.exit_code, said.stdout) == (0, "")
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT count(*) FROM tenants").fetchone() == (0,)
    finally:
        test_run.drop_database(url)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://x", "expected a database URL such as"),
        ("postgresql://127.0.0.1:1/none", "PostgreSQL does not answer"),
    ],
)
def test_a_database_that_cannot_be_upgraded_is_one_sentence(
    monkeypatch: pytest.MonkeyPatch, url: str, said: str, tmp_path: Path
) -> None:
    monkeypatch.setenv("PARTYWALL_DATABASE_URL", url)
    result = partywall("db", "upgrade")
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
