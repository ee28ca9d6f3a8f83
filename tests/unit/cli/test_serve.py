"""`partywall serve`: what it makes of flags and environment (that it serves: acceptance tests)."""

import pytest

from partywall_service import server
from partywall_service.settings import Settings
from tests.unit.cli.conftest import Partywall


@pytest.fixture
def served(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, int, bool]]:
    """What `server.serve` was called with."""
    calls: list[tuple[Settings, int, bool]] = []

    def serve(settings: Settings, *, workers: int = 1, with_worker: bool = False) -> None:
        calls.append((settings, workers, with_worker))

    monkeypatch.setattr(server, "serve", serve)
    return calls


def test_flags_win_over_the_environment(
    partywall: Partywall,
    served: list[tuple[Settings, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARTYWALL_PORT", "1111")
    monkeypatch.setenv("PARTYWALL_HOST", "0.0.0.0")
    monkeypatch.setenv("PARTYWALL_CONFIG", "theirs.toml")
    assert partywall("serve").exit_code == 0
    flags = [
        "--port",
        "0",
        "--host",
        "::1",
        "--config",
        "mine.toml",
        "--workers",
        "3",
        "--with-worker",
    ]
    assert partywall("serve", *flags, "--with-worker").exit_code == 0
    (by_environment, one, alone), (by_flags, three, with_worker) = served
    assert (alone, with_worker) == (False, True)
    assert (by_environment.port, by_environment.host, one) == (1111, "0.0.0.0", 1)
    assert str(by_environment.config) == "theirs.toml"
    assert (by_flags.port, by_flags.host, three) == (0, "::1", 3)
    assert str(by_flags.config) == "mine.toml"


def test_settings_that_cannot_be_are_a_sentence_each_and_secrets_stay_secret(
    partywall: Partywall,
    served: list[tuple[Settings, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARTYWALL_PORT", "abc")
    monkeypatch.setenv("PARTYWALL_REDIS_TIMEOUT_MS", "0")
    monkeypatch.setenv("PARTYWALL_ADMIN_TOKEN", "")
    result = partywall("serve")
    assert (result.exit_code, result.stdout, served) == (1, "", [])
    said = dict(line.split(": ", 1) for line in result.stderr.splitlines())
    assert said.keys() == {
        "PARTYWALL_PORT",
        "PARTYWALL_REDIS_TIMEOUT_MS",
        "PARTYWALL_ADMIN_TOKEN",
    }
    assert said["PARTYWALL_PORT"].startswith("expected a valid integer")
    assert said["PARTYWALL_PORT"].endswith("got 'abc'")
    assert "got" not in said["PARTYWALL_ADMIN_TOKEN"]


def test_a_sidecar_that_cannot_run_says_why(
    partywall: Partywall, monkeypatch: pytest.MonkeyPatch
) -> None:
    def serve(settings: Settings, *, workers: int = 1, with_worker: bool = False) -> None:
        raise server.ServeError("port 8080 is in use")

    monkeypatch.setattr(server, "serve", serve)
    result = partywall("serve")
    assert (result.exit_code, result.stderr) == (1, "port 8080 is in use\n")


@pytest.mark.parametrize(
    ("urls", "secret", "said"),
    [
        ("https://ops.example/hook", None, "PARTYWALL_WEBHOOK_SECRET: webhooks are signed"),
        ("https://ops.example/hook", "", "PARTYWALL_WEBHOOK_SECRET: webhooks are signed"),
        ("https://ops.example/hook", "c2hvcnQ=", "expected base64 of 16 to 64 random bytes"),
        ("https://ops.example/hook", "no base64, but long", "PARTYWALL_WEBHOOK_SECRET: expected"),
        ("ops.example/hook", "c2hvcnQ=", "PARTYWALL_WEBHOOK_URLS: expected URLs such as https://"),
        ("http://user:pass@host:port/", None, "PARTYWALL_WEBHOOK_URLS: expected URLs"),
    ],
)
def test_webhooks_that_cannot_be_sent_are_refused_and_no_secret_is_shown(
    partywall: Partywall,
    served: list[tuple[Settings, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
    urls: str,
    secret: str | None,
    said: str,
) -> None:
    monkeypatch.setenv("PARTYWALL_WEBHOOK_URLS", urls)
    if secret is not None:
        monkeypatch.setenv("PARTYWALL_WEBHOOK_SECRET", secret)
    result = partywall("serve")
    assert result.exit_code == 1
    assert said in result.stderr
    assert "pass@" not in result.stderr
    assert not secret or secret not in result.stderr
    assert served == []


def test_webhook_settings_that_are_empty_are_none(
    partywall: Partywall,
    served: list[tuple[Settings, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARTYWALL_WEBHOOK_URLS", "")
    monkeypatch.setenv("PARTYWALL_WEBHOOK_SECRET", "")
    assert partywall("serve").exit_code == 0
    ((settings, *_),) = served
    assert settings.webhook_urls == ()
    assert settings.webhook_secret is None


def test_webhooks_may_be_several(
    partywall: Partywall,
    served: list[tuple[Settings, int, bool]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PARTYWALL_WEBHOOK_URLS", "https://a.example/x, http://b.example:81/y")
    monkeypatch.setenv("PARTYWALL_WEBHOOK_SECRET", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    assert partywall("serve").exit_code == 0
    ((settings, *_),) = served
    assert settings.webhook_urls == ("https://a.example/x", "http://b.example:81/y")


def test_a_child_process_reads_the_settings_that_its_parent_had(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for given in ((), ("https://a.example/x", "http://b.example:81/y")):
        settings = Settings(webhook_urls=given, webhook_secret="c2VjcmV0IHNlY3JldCBzZWNyZXQ=")
        for name, value in server._environment(settings).items():
            monkeypatch.setenv(name, value)
        assert Settings() == settings
