"""docs/quotas.md: each snippet runs as it stands there, and prints what it promises."""

import pytest

from partywall.testing import FakeSidecar
from tests.support.pages import ROOT, blocks

PAGE = ROOT / "docs" / "quotas.md"
SNIPPETS = blocks(PAGE, "python")


@pytest.mark.parametrize("place", range(len(SNIPPETS)))
def test_a_snippet_of_the_page_does_what_it_says(
    place: int, capsys: pytest.CaptureFixture[str]
) -> None:
    with FakeSidecar():  # tests/acceptance/test_fake_is_faithful.py: as a real one
        exec(compile(SNIPPETS[place], str(PAGE), "exec"), {"__name__": "__main__"})
    printed = capsys.readouterr().out.splitlines()
    promised = [
        comment
        for code, _, comment in (line.partition("  # ") for line in SNIPPETS[place].splitlines())
        if comment and "print(" in code
    ]
    if place < len(SNIPPETS) - 1:
        assert printed == promised
        assert printed
    else:
        assert printed == ["acme users 80"]
