"""Workers that cannot run, and say so (those that do: acceptance tests)."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from partywall_service import logs
from partywall_workers.__main__ import main
from tests.unit.cli.conftest import Partywall

MODULES = {
    "shop": """
from partywall_workers import FairWorkerSettings

async def say(ctx):
    pass

def plain(ctx):
    pass

class Settings(FairWorkerSettings):
    functions = [say]

class Empty(FairWorkerSettings):
    pass

class Wrong(FairWorkerSettings):
    functions = [plain]

class Slow(FairWorkerSettings):
    functions = [say]
    lease = 0.1

number = 1
""",
    "broken": "import not_installed_anywhere\n",
    "torn": "class Settings(\n",
    "failing": "first = 1\n1 / 0\n",
}

Run = Callable[[str], tuple[int, str]]


@pytest.fixture(autouse=True)
def _modules(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, source in MODULES.items():
        Path(f"{name}.py").write_text(source)
    monkeypatch.setattr(sys, "path", list(sys.path))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture(params=["partywall worker", "python -m partywall_workers"])
def run(
    request: pytest.FixtureRequest,
    partywall: Partywall,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Run:
    """Either command, which ends: its exit code and what it says."""
    monkeypatch.setattr(logs, "configure_logging", lambda *_: None)

    def by_partywall(name: str) -> tuple[int, str]:
        result = partywall("worker", name)
        return result.exit_code, result.stderr

    def by_python(name: str) -> tuple[int, str]:
        return main([name]), capsys.readouterr().err

    return by_partywall if request.param == "partywall worker" else by_python


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shop", "expected a module and a class in it, such as myapp.jobs.Settings; got 'shop'"),
        ("shop:Settings", "expected a module and a class in it"),
        (".Settings", "expected a module and a class in it"),
        ("nowhere.jobs.Settings", "there is no module nowhere in "),
        ("shop.Setings", "shop.py) has no Setings"),
        ("shop.number", "expected shop.number to be a class"),
        ("shop.Empty", "shop.Empty has no functions"),
        ("shop.Wrong", "shop.Wrong: "),
        ("shop.Slow", "shop.Slow: lease: expected seconds from 1; got 0.1"),
        ("broken.Settings", "broken cannot be imported: ModuleNotFoundError: No module named 'not"),
        ("torn.Settings", "torn cannot be imported: SyntaxError: "),
        ("failing.Settings", "ZeroDivisionError: division by zero ("),
        ("failing.Settings", "failing.py, line 2)"),
    ],
)
def test_settings_that_cannot_be_are_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("PARTYWALL_REDIS_URL", "redis://127.0.0.1:1")
    code, told = run(name)
    assert code == 1
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PARTYWALL_REDIS_URL", "gopher://x", "shop.Settings: "),
        ("PARTYWALL_JOBS_REDIS_URL", "gopher://x", "shop.Settings: "),
        ("PARTYWALL_DATA_DIR", "elsewhere", "elsewhere"),
    ],
)
def test_a_redis_that_cannot_be_is_a_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setenv(variable, value)
    code, told = run("shop.Settings")
    assert code == 1
    assert said in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("PARTYWALL_JOBS_REDIS_URL", "redis+cluster://127.0.0.1:1", "jobs need a single Redis"),
        ("PARTYWALL_DATABASE_URL", "postgresql://127.0.0.1:1/x", "does not answer"),
        ("PARTYWALL_DATABASE_URL", "mysql://x", "PARTYWALL_DATABASE_URL: "),
        ("PARTYWALL_KEY_PREFIX", "a b", "PARTYWALL_KEY_PREFIX: "),
        (
            "PARTYWALL_DATA_DIR",
            "elsewhere",
            "no PostgreSQL answers in the data directory els",
        ),
    ],
)
def test_maintenance_without_its_stores_is_a_sentence(
    partywall: Partywall, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, said: str
) -> None:
    monkeypatch.setattr(logs, "configure_logging", lambda *_: None)
    monkeypatch.setenv("PARTYWALL_REDIS_URL", "redis://127.0.0.1:1")
    monkeypatch.setenv(variable, value)
    result = partywall("worker")
    assert (result.exit_code, result.stdout) == (1, "")
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
