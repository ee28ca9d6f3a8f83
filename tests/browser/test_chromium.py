"""Whether there is a browser: where nobody would read that its tests were skipped, they fail."""

import pytest

from tests.support.browser import find_chromium


@pytest.fixture(autouse=True)
def _nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    """No browser, on a developer's machine."""
    monkeypatch.setenv("PATH", "/nowhere")
    for name in ("CI", "PARTYWALL_BROWSER", "PARTYWALL_CHROMIUM"):
        monkeypatch.delenv(name, raising=False)


def test_without_one_tests_are_skipped_with_the_reason() -> None:
    with pytest.raises(pytest.skip.Exception, match="install Debian's package chromium"):
        find_chromium()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CI", "true"),
        ("PARTYWALL_BROWSER", "required"),
        ("PARTYWALL_CHROMIUM", "/nowhere/chromium"),
    ],
)
def test_where_one_is_expected_they_fail(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(pytest.fail.Exception, match="no browser: expected"):
        find_chromium()


def test_one_that_is_named_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARTYWALL_CHROMIUM", "/bin/sh")
    assert find_chromium() == "/bin/sh"
