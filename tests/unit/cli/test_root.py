"""What holds for every command."""

import os
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import typer

from partywall_service.cli import app
from tests.unit.cli.conftest import Partywall

REPO = Path(__file__).parents[3]


def _paths() -> list[tuple[str, ...]]:
    """Every command and group, from the tree itself, so that none is forgotten."""

    def walk(command: object, path: tuple[str, ...]) -> list[tuple[str, ...]]:
        children = getattr(command, "commands", {})
        return [path, *(one for name in children for one in walk(children[name], (*path, name)))]

    return walk(typer.main.get_command(app), ())


def test_the_commands_are_those_of_the_contract() -> None:
    assert {" ".join(path) for path in _paths()} == {
        "",
        "serve",
        "worker",
        "simulate",
        "neighbors",
        "report",
        "demo",
        *("config", "config check"),
        *("tenants", "tenants list", "tenants show", "tenants set", "tenants delete"),
        *("tenants import", "tenants export"),
        *("overrides", "overrides list", "overrides set", "overrides delete"),
        *("quotas", "quotas show", "quotas consume", "quotas release", "quotas set"),
        *("quotas reconcile", "quotas ledger", "quotas preview"),
        *("jobs", "jobs list", "jobs show", "jobs cancel", "jobs retry", "jobs pause"),
        *("jobs resume", "jobs purge", "jobs top"),
        *("tokens", "tokens create", "tokens list", "tokens revoke"),
        *("db", "db upgrade"),
    }


@pytest.mark.parametrize("path", _paths(), ids=" ".join)
def test_every_help_has_an_example_that_is_of_that_command(
    partywall: Partywall, path: tuple[str, ...]
) -> None:
    result = partywall(*path, "--help")
    assert result.exit_code == 0
    _, _, examples = result.stdout.partition("Example")
    assert " ".join(("partywall", *path)) in " ".join(examples.split())


def test_version(partywall: Partywall) -> None:
    result = partywall("--version")
    assert (result.exit_code, result.stdout) == (0, f"partywall {version('partywall')}\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nope"], "No such command 'nope'"),
        (["--nope"], "No such option: --nope"),
        (["simulate"], "Missing argument 'LOG'"),
        (["serve", "--port", "99999"], "Invalid value for '--port'"),
        (["serve", "--workers", "0"], "Invalid value for '--workers'"),
        (["tenants", "list", "--format", "xml"], "Invalid value for '--format'"),
        (["tenants", "show", "../tokens"], "expected a tenant id"),
        (["tenants", "show", "ä"], "expected a tenant id"),
        (["tenants", "list", "--tier", "a b"], "expected a name"),
        (["tenants", "set", "acme"], "expected something to set"),
        (["tenants", "set", "a", "--domain", "a.b", "--no-domains"], "got both"),
        (["overrides", "set", "a", "rates", "x", "1", "--reason", "x"], "Invalid value for"),
        (["overrides", "set", "a", "limits", "x", "1"], "Missing option '--reason'"),
        (["quotas", "show", "ä"], "expected a tenant id"),
        (["quotas", "consume", "acme"], "Missing argument 'RESOURCE=AMOUNT'"),
        (["quotas", "consume", "acme", "users"], "expected RESOURCE=AMOUNT, such as users=1"),
        (["quotas", "consume", "acme", "users=1", "users=1"], "expected users once"),
        (["quotas", "consume", "acme", "users=0"], "expected a whole number from 1 to 2^53-1"),
        (["quotas", "consume", "acme", "a b=1"], "expected a resource's name; got 'a b'"),
        (["quotas", "consume", "a", "u=1", "--idempotency-key", "ä"], "expected 1 to 255 visible"),
        (["quotas", "release", "acme", "users=-1"], "expected a whole number from 1"),
        (["quotas", "release", "acme", "users=unlimited"], "expected a whole number from 1"),
        (["quotas", "release", "acme", "users=1@7"], "expected a whole number from 1"),
        (["quotas", "set", "acme", "storage=1.0000001GiB"], "or a size in B, kB, MB"),
        (["quotas", "set", "acme", "users=9007199254740992"], "from 0 to 2^53-1"),
        (["quotas", "set", "acme", "users=1", "--if-version", "-1"], "Invalid value for"),
        (["quotas", "reconcile"], "expected a tenant and RESOURCE=AMOUNT, or --from FILE"),
        (["quotas", "reconcile", "acme"], "expected a tenant and RESOURCE=AMOUNT"),
        (["quotas", "reconcile", "acme", "users=1@x"], "users: expected a version"),
        (["quotas", "reconcile", "acme", "--from", "x.csv"], "expected --from or a tenant"),
        (["quotas", "ledger", "acme", "--limit", "0"], "Invalid value for '--limit'"),
        (["quotas", "preview", "acme"], "Missing option '--tier'"),
        (["jobs", "list", "_acme"], "expected a tenant id, or _system or _cron"),
        (["jobs", "list", "acme", "--status", "done"], "Invalid value for '--status'"),
        (["jobs", "show", "acme", "../../tokens"], "expected a job's id"),
        (["jobs", "show", "acme", "x\n"], "expected a job's id"),
        (["jobs", "pause", "_system"], "expected a tenant id"),
        (["jobs", "cancel", "acme"], "Missing argument 'ID'"),
        (["jobs", "purge", "acme"], "expected --yes, as there is no terminal"),
        (["jobs", "top", "--interval", "0"], "expected seconds above 0"),
        (["report", "--from", "the other day"], "expected a date such as 2026-11-01"),
        (["report", "--by", "meter"], "Invalid value for '--by'"),
        (["report", "--format", "xml"], "Invalid value for '--format'"),
        (["tokens", "revoke", "a/b?c"], "expected a token's id"),
        (["tokens", "create"], "Missing option '--name'"),
        (["db", "upgrade"], "expected a database in PARTYWALL_DATABASE_URL"),
    ],
)
def test_a_wrong_use_is_one_sentence_and_exit_code_2(
    partywall: Partywall, arguments: list[str], said: str
) -> None:
    result = partywall(*arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1


def _process(
    *command: str, environment: dict[str, str] | None = None
) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, **(environment or {})},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def test_a_base_install_says_what_to_install() -> None:
    """With -S nothing installed can be seen: less even than an install of the SDK alone has."""
    roots = os.pathsep.join(str(REPO / root) for root in ("sdk", "workers", "service"))
    done = _process("-S", "-m", "partywall_service", environment={"PYTHONPATH": roots})
    assert (done.returncode, done.stdout) == (1, "")
    assert "install partywall[service]" in done.stderr
    assert done.stderr.count("\n") == 1


def test_help_does_not_wait_for_what_only_commands_need() -> None:
    heavy = "{'fastapi', 'sqlalchemy', 'httpx', 'pydantic', 'limits', 'redis', 'uvicorn'}"
    program = (
        f"import sys, partywall_service.cli.root; print(sorted({heavy} & set(sys.modules)), end='')"
    )
    done = _process("-c", program)
    assert (done.stdout, done.stderr) == ("[]", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shell_completion(shell: str) -> None:
    script = _process(
        "-m",
        "partywall_service",
        "--show-completion",
        shell,
        environment={"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"},
    )
    assert script.returncode == 0
    assert "_PARTYWALL_COMPLETE" in script.stdout


def test_completion_completes() -> None:
    completed = _process(
        "-m",
        "partywall_service",
        environment={
            "_PARTYWALL_COMPLETE": "complete_bash",
            "COMP_WORDS": "partywall tenants s",
            "COMP_CWORD": "2",
        },
    )
    assert completed.stdout.split() == ["show", "set"]
