"""`partywall quotas` on a real sidecar."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from partywall_service.cli import app, client, quotas_drift
from tests.support.run import TestRun
from tests.support.shared import shared_sidecars
from tests.support.sidecar import ADMIN_TOKEN, Sidecar

POLICY = """
[tiers.free.quotas]
users = 5
storage = "1 GiB"
emails = { limit = 500, per = "month" }
seats = 2

[tiers.pro]
extends = "free"
quotas = { users = 50, storage = "unlimited", seats = 9 }

[resources.seats]
durable = false
"""


@pytest.fixture(scope="module")
def served(test_run: TestRun) -> Iterator[Sidecar]:
    """One sidecar for all; each test brings a tenant of its own."""
    with shared_sidecars(test_run, POLICY) as (one,):
        yield one


@pytest.fixture
def acme(served: Sidecar, monkeypatch: pytest.MonkeyPatch) -> str:
    """A tenant of the tier free, on the sidecar that every command of this test talks to."""
    monkeypatch.setenv("PARTYWALL_SIDECAR_URL", served.url)
    monkeypatch.setenv("PARTYWALL_TOKEN", ADMIN_TOKEN)
    monkeypatch.setenv("COLUMNS", "80")
    tenant = f"acme-{uuid.uuid4().hex[:8]}"
    ask("tenants", "set", tenant, "--tier", "free")
    return tenant


def partywall(*arguments: str, stdin: str | None = None) -> Result:
    return CliRunner().invoke(
        app, list(arguments), input=stdin, prog_name="partywall", catch_exceptions=False
    )


def ask(*arguments: str) -> Result:
    """A command that does what it is asked."""
    result = partywall(*arguments)
    assert result.exit_code == 0, result.stderr
    return result


def quotas(*arguments: str) -> Result:
    return ask("quotas", *arguments)


def shown(tenant: str) -> dict[str, dict[str, Any]]:
    answer = json.loads(quotas("show", tenant, "--json").stdout)
    return {one["resource"]: one for one in answer["quotas"]}


def used(tenant: str) -> dict[str, int]:
    return {name: one["used"] for name, one in shown(tenant).items() if one["used"]}


def lines_of(text: str) -> dict[str, list[str]]:
    """A table's rows by their first word."""
    return {words[0]: words for line in text.splitlines() if (words := line.split())}


def test_what_is_consumed_is_shown_in_bars_and_numbers(acme: str) -> None:
    said = quotas("consume", acme, "users=4", "storage=512MiB", "emails=20")
    assert said.stderr.splitlines() == [
        f"{acme} consumed users=4, storage=512MiB, emails=20",
        "users crossed 80% of its limit",
    ]
    assert lines_of(said.stdout)["users"][2:5] == ["80%", "4", "5"]

    table = quotas("show", acme).stdout
    assert table.startswith(f"{acme}, tier free\n")
    rows = lines_of(table)
    assert rows["users"][2:] == ["80%", "4", "5", "!", "80%", "-"]
    assert rows["storage"][2:7] == ["50%", "512", "MiB", "1", "GiB"]
    assert rows["emails"][2:7] == ["4%", "20", "500", "a", "month"]
    assert " in " in table
    assert "seats" in rows
    assert table.isascii() or "─" in table
    assert max(map(len, table.splitlines())) <= 80
    assert "536,870,912" in quotas("show", acme, "--exact").stdout

    back = quotas("release", acme, "users=3", "storage=0.5GiB", "--reason", "left")
    assert back.stderr == f"{acme} released users=3, storage=0.5GiB\n"
    assert used(acme) == {"users": 1, "emails": 20}


def test_json_is_the_apis_answer_in_both_spellings(acme: str) -> None:
    short = json.loads(quotas("show", acme, "--json").stdout)
    assert json.loads(quotas("show", acme, "--format", "json").stdout) == short
    assert (short["tenant"], short["tier"]) == (acme, "free")
    answer = json.loads(quotas("consume", acme, "users=1", "--json").stdout)
    assert (answer["allowed"], answer["quotas"][0]["used"]) == (True, 1)
    level = json.loads(quotas("set", acme, "users=3", "--json").stdout)
    assert (level["resource"], level["used"]) == ("users", 3)


def test_a_denial_has_an_exit_code_of_its_own_and_says_what_to_do(acme: str) -> None:
    quotas("consume", acme, "users=4")
    denied = partywall("quotas", "consume", acme, "users=2", "storage=1GiB")
    assert (denied.exit_code, denied.stdout) == (3, "")
    assert denied.stderr.splitlines() == [
        f"denied: {acme} has no room for users=2: 4 of 5 used, 1 remaining",
        "nothing was consumed",
        f"to allow it now: partywall overrides set {acme} quotas users 6 --reason TEXT",
    ]
    assert used(acme) == {"users": 4}
    ask("overrides", "set", acme, "quotas", "users", "6", "--reason", "as it said")
    quotas("consume", acme, "users=2")

    answer = partywall("quotas", "consume", acme, "emails=501", "--json")
    assert answer.exit_code == 3
    assert json.loads(answer.stdout)["denied"] == ["emails"]
    assert "emails refills in " in answer.stderr


def test_an_idempotency_key_consumes_once(acme: str) -> None:
    for _ in range(2):
        quotas("consume", acme, "users=1", "--idempotency-key", "order-1")
    assert used(acme) == {"users": 1}
    other = partywall("quotas", "consume", acme, "users=2", "--idempotency-key", "order-1")
    assert (other.exit_code, other.stdout) == (1, "")
    assert other.stderr.count("\n") == 1
    quotas("release", acme, "users=1", "--idempotency-key", "order-1")  # of another path
    assert used(acme) == {}


def test_set_says_what_is_used_unless_it_has_moved_on(acme: str) -> None:
    quotas("consume", acme, "users=2")
    version = shown(acme)["users"]["version"]
    said = quotas("set", acme, "users=42", "--reason", "counted", "--if-version", str(version))
    assert said.stderr.startswith(f"{acme} has users set: 42 of 5 used, 0 remaining; version ")
    assert lines_of(quotas("show", acme).stdout)["users"][2:4] == ["840%", "42"]
    moved = partywall("quotas", "set", acme, "users=1", "--if-version", str(version))
    assert (moved.exit_code, moved.stdout) == (1, "")
    assert f"it has moved on to {version + 1}; `partywall quotas show" in moved.stderr
    assert used(acme) == {"users": 42}


def test_the_ledger_has_every_change_newest_first(
    acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "PAGE_SIZE", 2)
    for n in range(1, 6):
        quotas("consume", acme, "users=1", "storage=1kB", "--reason", f"hire [{n}]")
    quotas("release", acme, "users=2")
    entries = json.loads(quotas("ledger", acme, "--resource", "users", "--json").stdout)["entries"]
    assert [one["delta"] for one in entries] == [-2, 1, 1, 1, 1, 1]
    few = quotas("ledger", acme, "--limit", "3")
    assert few.stderr == "there are older ones; --limit shows more than 3\n"
    first, *_ = few.stdout.splitlines()[2:]
    assert first.split()[2:] == ["users", "release", "admin", "-", "-2", "3"]
    assert "hire [5]" in few.stdout
    assert "hire [2]" not in few.stdout
    assert "+1,000" in quotas("ledger", acme, "--resource", "storage").stdout


def test_a_preview_says_what_would_be_too_much(acme: str) -> None:
    ask("tenants", "set", acme, "--tier", "pro")
    fits = quotas("preview", acme, "--tier", "free")
    assert (fits.stdout, fits.stderr) == (
        "",
        f"{acme} fits tier free: it would have too much of nothing\n",
    )
    quotas("set", acme, "users=42")
    quotas("set", acme, "storage=1.5GiB")
    over = quotas("preview", acme, "--tier", "free")
    rows = lines_of(over.stdout)
    assert rows["users"] == ["users", "42", "5", "37"]
    assert rows["storage"] == ["storage", "1.5", "GiB", "1", "GiB", "512", "MiB"]
    assert over.stderr.startswith(f"from tier pro to free, {acme} would keep what it has")
    answer = json.loads(quotas("preview", acme, "--tier", "free", "--json").stdout)
    assert (answer["from"], answer["to"], len(answer["over"])) == ("pro", "free", 2)
    gold = partywall("quotas", "preview", acme, "--tier", "gold")
    assert (gold.exit_code, gold.stdout) == (1, "")
    assert "expected one of free, pro" in gold.stderr


def test_reconciling_reports_the_drift_first_and_then_repairs_it(acme: str) -> None:
    quotas("consume", acme, "users=3", "seats=1")
    counted = ("users=4", "storage=1MiB", "seats=1")
    dry = quotas("reconcile", acme, *counted, "--dry-run")
    assert lines_of(dry.stdout)["users"] == ["users", "3", "4", "+1"]
    assert lines_of(dry.stdout)["storage"] == ["storage", "0", "1,048,576", "+1,048,576"]
    assert lines_of(dry.stdout)["seats"] == ["seats", "1", "1", "0"]
    assert dry.stderr == "nothing was changed: this was a dry run\n"
    assert used(acme) == {"users": 3, "seats": 1}

    done = quotas("reconcile", acme, *counted)
    assert done.stdout == dry.stdout
    assert done.stderr == f"users of {acme} is repaired\nstorage of {acme} is repaired\n"
    assert used(acme) == {"users": 4, "storage": 2**20, "seats": 1}
    assert quotas("reconcile", acme, *counted).stderr == f"nothing of {acme} has drifted\n"
    [line] = json.loads(quotas("ledger", acme, "--resource", "storage", "--json").stdout)["entries"]
    assert (line["operation"], line["delta"], line["reason"]) == ("set", 2**20, "reconcile")


def test_what_changed_since_it_was_counted_is_told_and_kept(
    acme: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    quotas("consume", acme, "users=2")
    version = shown(acme)["users"]["version"]
    quotas("consume", acme, "users=1")  # while somebody counts
    moved = partywall("quotas", "reconcile", acme, f"users=1@{version}", "storage=1kB")
    assert moved.exit_code == 1
    assert f"users: it has moved on from version {version} to {version + 1}" in moved.stderr
    assert used(acme) == {"users": 3, "storage": 1000}
    quotas("reconcile", acme, f"users=4@{version + 1}")
    assert used(acme) == {"users": 4, "storage": 1000}

    found = quotas_drift.drifts

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(quotas_drift, "drifts", found)
        quotas("consume", acme, "users=1")  # between the report and the repair
        return found(*arguments)

    monkeypatch.setattr(quotas_drift, "drifts", interrupted)
    raced = partywall("quotas", "reconcile", acme, "users=2")
    assert raced.exit_code == 1
    assert raced.stderr == "users: it changed while it was repaired; count it again\n"
    assert used(acme) == {"users": 5, "storage": 1000}


async def test_what_is_reserved_is_not_repaired_under_its_holder(
    acme: str, served: Sidecar
) -> None:
    path = f"/v1/tenants/{acme}/quotas"
    async with served.client() as http:
        held = (await http.post(f"{path}/reserve", json={"items": {"users": 2}})).json()
        assert "+" in lines_of(quotas("show", acme).stdout)["users"][1]
        result = partywall("quotas", "reconcile", acme, "users=2")
        assert result.exit_code == 1
        assert "users: 2 of it are reserved just now; count it again" in result.stderr
        await http.post(f"{path}/reservations/{held['reservation']}/commit")
    assert quotas("reconcile", acme, "users=2").stderr == f"nothing of {acme} has drifted\n"


def test_a_file_reconciles_many_tenants_and_tells_the_lines_it_cannot(
    acme: str, tmp_path: Path
) -> None:
    others = [f"{acme}-{n}" for n in range(3)]
    for one in others:
        ask("tenants", "set", one, "--tier", "free")
        quotas("consume", one, "users=2")
    version = shown(others[2])["users"]["version"]
    file = tmp_path / "counts.csv"
    file.write_text(
        "\ufeffresource,tenant,used,version\n"
        f"users,{others[0]},2,\n"
        f"storage,{others[0]},1 kB,\n"
        f"userz,{others[1]},2,\n"
        f"users,{others[1]},1,\n"
        f"users,{others[1]},1,\n"
        "users,nobody,1,\n"
        f"users,{others[2]},3,{version + 7}\n"
        f"users,{others[2]},many,\n"
        f"users,{others[2]}\n"
    )
    dry = partywall("quotas", "reconcile", "--from", str(file), "--dry-run")
    assert dry.exit_code == 1
    header, *drifted, totals = dry.stdout.splitlines()
    assert header.split() == ["Tenant", "Resource", "Recorded", "Counted", "Drift"]
    assert [line.split() for line in drifted] == [
        [others[0], "storage", "0", "1,000", "+1,000"],
        [others[1], "users", "2", "1", "-1"],
        [others[2], "users", "2", "3", "+1"],
    ]
    assert totals == "compared 4, drifted 3, nothing was changed, failed 6"
    told = {line.split(":")[0]: line for line in dry.stderr.splitlines()}
    assert sorted(told) == ["line 10", "line 4", "line 6", "line 7", "line 8", "line 9"]
    assert "did you mean 'users'?" in told["line 4"]
    assert "it is on line 5 already" in told["line 6"]
    assert told["line 7"].endswith("nobody: tenant 'nobody' is not registered")
    assert "it has moved on from version" in told["line 8"]
    assert "users: expected a whole number from 0" in told["line 9"]
    assert "expected 4 cells, as the header has; got 2" in told["line 10"]
    assert used(others[1]) == {"users": 2}

    done = partywall("quotas", "reconcile", "--from", str(file))
    assert (done.exit_code, done.stderr) == (1, dry.stderr)
    assert done.stdout.splitlines()[-1] == "compared 4, drifted 3, repaired 2, failed 6"
    assert used(others[0]) == {"users": 2, "storage": 1000}
    assert used(others[1]) == {"users": 1}
    assert used(others[2]) == {"users": 2}
    again = partywall(
        "quotas", "reconcile", "--from", "-", stdin=f"tenant,resource,used\n{others[1]},users,1\n"
    )
    assert (again.exit_code, again.stdout) == (0, "compared 1, drifted 0, repaired 0, failed 0\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("consume", "{}", "nope=1"), "expected one of users, storage, emails, seats"),
        (("consume", "{}", "users=1GiB"), "users: expected a whole number, as it is not measured"),
        (("release", "{}", "users=1"), "expected to release at most the 0 of 'users' in use"),
        (("set", "{}", "nope=1"), "expected one of users"),
        (("reconcile", "{}", "user=1"), "did you mean 'users'?"),
        (("reconcile", "{}", "users=1kB"), "users: expected a whole number"),
        (("ledger", "{}", "--resource", "nope"), "expected one of users"),
        (("show", "nobody"), "tenant 'nobody' is not registered"),
        (("reconcile", "nobody", "users=1"), "tenant 'nobody' is not registered"),
        (("consume", "nobody", "users=1"), "tenant 'nobody' is not registered"),
        (("preview", "nobody", "--tier", "free"), "tenant 'nobody' is not registered"),
    ],
)
def test_a_mistake_is_one_sentence_and_changes_nothing(
    acme: str, arguments: tuple[str, ...], said: str
) -> None:
    result = partywall("quotas", *(one.format(acme) for one in arguments))
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert used(acme) == {}
