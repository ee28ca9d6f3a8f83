"""Every file in corpus/bad has its one kind of mistake, and says first what is told of it."""

from pathlib import Path

import pytest

from partywall_service.policy.loader import PolicyError, load_policy

CORPUS = Path(__file__).parent / "corpus"
ROOT = Path(__file__).parents[3]
EXPECT = "# expect: "


def _named(path: Path) -> str:
    return path.stem


@pytest.mark.parametrize("path", sorted(CORPUS.glob("bad/*.toml")), ids=_named)
def test_a_mistake_is_told_with_its_place_and_what_was_expected(path: Path) -> None:
    lines = path.read_text().splitlines()
    expected = [line.removeprefix(EXPECT) for line in lines if line.startswith(EXPECT)]
    assert expected, f"{path.name} does not say what it expects"
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert str(caught.value).splitlines() == [f"{path}: {line}" for line in expected]
    assert len(caught.value.errors) == len(expected)


@pytest.mark.parametrize(
    "path", [*sorted(CORPUS.glob("good/*.toml")), ROOT / "quotas.toml"], ids=_named
)
def test_a_good_file_loads(path: Path) -> None:
    policy = load_policy(path)
    for tier in policy.tiers.values():
        assert set(tier.limits) == policy.limit_names
        assert set(tier.quotas) == set(policy.resources)


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (b"", "tiers: expected at least one tier, as [tiers.free]; got none"),
        (b"\n# nothing yet\n", "tiers: expected at least one tier, as [tiers.free]; got none"),
        (b"[tiers.free]\n# \xff", "expected UTF-8; byte 15 of the file is no part of any"),
        ("[tiers.free]".encode("utf-16"), "expected UTF-8; byte 0 of the file is no part of any"),
        (b"a = " + b"[" * 5000, "expected TOML: its lists or tables lie too deep in one another"),
    ],
    ids=["empty", "comment", "latin-1", "utf-16", "deep"],
)
def test_a_file_that_is_no_text_of_a_policy(tmp_path: Path, content: bytes, expected: str) -> None:
    path = tmp_path / "quotas.toml"
    path.write_bytes(content)
    with pytest.raises(PolicyError) as caught:
        load_policy(path)
    assert str(caught.value) == f"{path}: {expected}"


def test_a_missing_file_and_a_directory_cannot_be_read(tmp_path: Path) -> None:
    for path, reason in (
        (tmp_path / "missing.toml", "No such file or directory"),
        (tmp_path, "Is a directory"),
        (tmp_path / "missing" / "quotas.toml", "No such file or directory"),
    ):
        with pytest.raises(PolicyError) as caught:
            load_policy(path)
        expected = f"{path}: expected a policy file; it cannot be read: {reason}"
        assert str(caught.value) == expected
