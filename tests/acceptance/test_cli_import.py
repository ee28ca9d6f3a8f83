"""`partywall tenants import` on a real sidecar."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from partywall_service.cli import app
from tests.conftest import SidecarFactory
from tests.support.sidecar import ADMIN_TOKEN, Sidecar


@pytest.fixture
def at(sidecar: SidecarFactory, monkeypatch: pytest.MonkeyPatch) -> Sidecar:
    """A sidecar that every command of this test talks to."""
    one = sidecar()
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", one.url)
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    return one


def partywall(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(
        app, list(arguments), input=stdin, prog_name="partywall", catch_exceptions=False
    )


def imported(content: str) -> Result:
    return partywall("tenants", "import", "-", stdin=content)


def there() -> dict[str, Any]:
    listed = partywall("tenants", "list", "--format", "json")
    assert listed.exit_code == 0, listed.stderr
    return {one["tenant"]: one for one in json.loads(listed.stdout)["tenants"]}


@pytest.mark.usefixtures("at")
def test_an_import_may_be_run_again_and_keeps_what_it_leaves_out(tmp_path: Path) -> None:
    file = tmp_path / "tenants.csv"
    lines = [f"t{n},{'pro' if n % 2 else 'free'},Tenant {n},,t{n}.example" for n in range(100)]
    file.write_text("\n".join(["\ufefftenant,tier,name,status,domains", *lines]))
    assert partywall("tenants", "import", str(file), "--dry-run").exit_code == 0
    assert there() == {}
    first = partywall("tenants", "import", str(file))
    assert (first.exit_code, first.stdout, first.stderr) == (
        0,
        "created 100, updated 0, unchanged 0, failed 0\n",
        "",
    )
    before = there()
    assert len(before) == 100
    assert (before["t7"]["tier"], before["t7"]["name"]) == ("pro", "Tenant 7")
    assert (before["t7"]["status"], before["t7"]["domains"]) == ("active", ["t7.example"])

    again = partywall("tenants", "import", str(file))
    assert (again.exit_code, again.stdout) == (0, "created 0, updated 0, unchanged 100, failed 0\n")
    assert there() == before  # updated_at too

    changed = imported("tier,tenant,name,domains,status\nfree,t7,,,suspended\npro,new,,,\n")
    assert (changed.exit_code, changed.stdout) == (
        0,
        "created 1, updated 1, unchanged 0, failed 0\n",
    )
    now = there()
    assert (now["t7"]["tier"], now["t7"]["status"]) == ("free", "suspended")
    assert (now["t7"]["name"], now["t7"]["domains"]) == ("Tenant 7", ["t7.example"])
    assert (now["new"]["name"], now["new"]["status"]) == ("new", "active")


@pytest.mark.usefixtures("at")
def test_a_refused_line_does_not_stop_the_others() -> None:
    assert imported("tenant,tier,domains\nold,free,old.example\n").exit_code == 0
    result = imported(
        "tenant,tier,domains\n"
        "a,free,a.example\n"
        "b,gold,\n"
        "c,free,c.example old.example\n"
        "d,pro,d.example\n"
    )
    assert (result.exit_code, result.stdout) == (1, "created 2, updated 0, unchanged 0, failed 2\n")
    tier, domain = result.stderr.splitlines()
    assert tier.startswith("line 3: b: tier: expected one of free, pro, enterprise; got 'gold'")
    assert domain.startswith("line 4: c: ")
    assert "old.example" in domain
    assert set(there()) == {"old", "a", "d"}


@pytest.mark.usefixtures("at")
def test_a_domain_moves_from_one_line_to_another() -> None:
    before = "".join(f"t{n},free,d{n}.example\n" for n in range(20))
    assert imported(f"tenant,tier,domains\n{before}").exit_code == 0
    # Each takes the next one's; only the last has a new one, so the chain comes free from its end.
    after = "".join(f"t{n},free,d{n + 1}.example\n" for n in range(20))
    result = imported(f"tenant,tier,domains\n{after}")
    assert (result.exit_code, result.stdout, result.stderr) == (
        0,
        "created 0, updated 20, unchanged 0, failed 0\n",
        "",
    )
    assert there()["t3"]["domains"] == ["d4.example"]


def test_a_wrong_token_is_one_sentence_and_nothing_is_changed(
    at: Sidecar, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = partywall("tokens", "create", "--scope", "tenant:acme", "--name", "acme's own")
    content = "".join(["tenant,tier\n", *(f"t{n},free\n" for n in range(200))])
    for token, said in (
        ("wrong", f"the sidecar at {at.url} does not take the token from PARTYWALL_TOKEN; "),
        (made.stdout.strip(), "a token of scope admin or host is needed; this one's is tenant; "),
    ):
        monkeypatch.setenv("PARTYWALL_TOKEN", token)
        result = imported(content)
        assert (result.exit_code, result.stdout) == (
            1,
            "created 0, updated 0, unchanged 0, failed 0\n",
        )
        assert result.stderr.startswith(said)
        assert result.stderr.count("\n") == 1
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    assert there() == {}


@pytest.mark.usefixtures("at")
def test_a_terminal_sees_the_progress_and_nobody_else(tmp_path: Path) -> None:
    file = tmp_path / "tenants.csv"
    file.write_text("tenant,tier\na,free\nb,free\n")
    terminal, end = pty.openpty()
    process = subprocess.run(
        [sys.executable, "-m", "partywall_service", "tenants", "import", str(file)],
        env={**os.environ, "TERM": "xterm"},
        stdout=subprocess.PIPE,
        stderr=end,
        text=True,
        check=False,
        timeout=60,
    )
    os.close(end)
    seen = os.read(terminal, 65536).decode()
    os.close(terminal)
    assert (process.returncode, process.stdout) == (
        0,
        "created 2, updated 0, unchanged 0, failed 0\n",
    )
    assert "Importing" in seen
