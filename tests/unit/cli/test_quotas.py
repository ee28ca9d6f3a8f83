"""`partywall quotas` where the sidecar does not answer as it should (else: acceptance tests)."""

from pathlib import Path

import pytest

from tests.unit.cli.conftest import Partywall
from tests.unit.cli.fake_sidecar import FakeSidecar, Reply

USERS = {
    "resource": "users",
    "unit": "count",
    "limit": 5,
    "used": 2,
    "reserved": 0,
    "remaining": 3,
    "period": None,
    "resets_at": None,
    "version": 7,
    "crossed": None,
    "crossed_at": None,
}
QUOTAS = {"tenant": "acme", "tier": "free", "quotas": [USERS]}
CONSUMED = {"allowed": True, "tenant": "acme", "denied": [], "quotas": [USERS], "crossings": []}
AWAY = (503, {"detail": "the database does not answer now; try again"})


@pytest.fixture
def fake(fake_sidecar: FakeSidecar) -> FakeSidecar:
    """One that has acme's quotas, and admits."""
    fake_sidecar.reply = lambda method, _path: (200, QUOTAS if method == "GET" else CONSUMED)
    return fake_sidecar


@pytest.mark.parametrize(
    "arguments",
    [
        ("show", "acme"),
        ("show", "acme", "--json"),
        ("consume", "acme", "users=1"),
        ("release", "acme", "users=1", "--json"),
        ("set", "acme", "users=1"),
        ("reconcile", "acme", "users=1"),
        ("ledger", "acme"),
        ("preview", "acme", "--tier", "free"),
    ],
)
@pytest.mark.parametrize(
    "body", [{}, ["?"], {"quotas": [1], "tier": "free", "tenant": "acme"}, {"entries": 1}]
)
def test_an_answer_that_is_none_is_one_sentence(
    partywall: Partywall, fake: FakeSidecar, arguments: tuple[str, ...], body: object
) -> None:
    fake.reply = lambda _method, _path: (200, body)
    result = partywall("quotas", *arguments)
    assert (result.exit_code, result.stdout) == (1, "")
    assert "answered something else than a Partywall sidecar" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["consume", "release"])
@pytest.mark.parametrize("reply", [AWAY, (0, None), (502, "<h1>Bad Gateway</h1>")])
def test_a_change_without_an_answer_can_be_asked_for_by_its_key(
    partywall: Partywall, fake: FakeSidecar, verb: str, reply: Reply
) -> None:
    fake.reply = lambda _method, _path: reply
    result = partywall("quotas", verb, "acme", "users=1")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr.count("\n") == 1
    [key] = fake.keys
    assert key
    assert f"the same command with --idempotency-key {key} does it once at most" in result.stderr
    partywall("quotas", verb, "acme", "users=1", "--idempotency-key", key)
    assert fake.keys == [key, key]


def test_two_commands_never_have_one_key(partywall: Partywall, fake: FakeSidecar) -> None:
    for _ in range(2):
        assert partywall("quotas", "consume", "acme", "users=1").exit_code == 0
    assert len(set(fake.keys)) == 2


def test_only_a_size_has_the_units_asked_for(partywall: Partywall, fake: FakeSidecar) -> None:
    assert partywall("quotas", "consume", "acme", "users=1").exit_code == 0
    assert [method for method, _ in fake.asked] == ["POST"]
    result = partywall("quotas", "consume", "acme", "users=1KiB")
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        "users: expected a whole number, as it is not measured in bytes; got '1KiB'\n"
    )
    assert [method for method, _ in fake.asked] == ["POST", "GET"]


@pytest.mark.parametrize("size", ["storage=1GiB", "storage=1 GiB", " storage = 1024 MiB"])
def test_a_size_is_sent_in_bytes(partywall: Partywall, fake: FakeSidecar, size: str) -> None:
    assert partywall("quotas", "consume", "acme", size, "users=3").exit_code == 0
    assert fake.bodies[-1] == {"items": {"storage": 2**30, "users": 3}}


def test_no_quota_at_all_is_said(partywall: Partywall, fake: FakeSidecar) -> None:
    fake.reply = lambda _method, _path: (200, {**QUOTAS, "quotas": []})
    result = partywall("quotas", "show", "acme")
    assert (result.exit_code, result.stdout) == (0, "acme, tier free\n")
    assert result.stderr == "no tier names a quota\n"


def test_what_unlimited_cannot_hold_is_denied_without_advice(
    partywall: Partywall, fake: FakeSidecar
) -> None:
    unlimited = {**USERS, "limit": None, "remaining": None, "used": 2**53 - 1}
    answer = {**CONSUMED, "allowed": False, "denied": ["users"], "quotas": [unlimited]}
    fake.reply = lambda _method, _path: (200, answer)
    result = partywall("quotas", "consume", "acme", "users=1")
    assert (result.exit_code, result.stdout) == (3, "")
    assert result.stderr == (
        "denied: acme has no room for users=1: 9,007,199,254,740,991 used\nnothing was consumed\n"
    )


def test_a_repair_names_the_version_that_was_read(partywall: Partywall, fake: FakeSidecar) -> None:
    assert partywall("quotas", "reconcile", "acme", "users=4").exit_code == 0
    assert fake.bodies[-1] == {"used": 4, "reason": "reconcile", "if_version": 7}


def test_what_was_repaired_before_an_end_is_told(partywall: Partywall, fake: FakeSidecar) -> None:
    both = {**QUOTAS, "quotas": [USERS, {**USERS, "resource": "projects"}]}

    def reply(method: str, path: str) -> Reply:
        if method == "GET":
            return 200, both
        return (200, USERS) if path.endswith("users") else AWAY

    fake.reply = reply
    result = partywall("quotas", "reconcile", "acme", "users=4", "projects=1")
    assert result.exit_code == 1
    assert result.stderr.splitlines() == [
        "users of acme is repaired",
        "the database does not answer now; try again",
    ]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "line 1: expected a header, such as tenant,resource,used; got an empty file"),
        ("tenant;resource;used\n", "line 1: expected commas between the columns"),
        ("tenant,resource\n", "line 1: expected a column used"),
        ("tenant,resource,used,user\n", "line 1: column: expected one of"),
        ("tenant,resource,used,used\n", "line 1: expected the column used once"),
        ('tenant,"resource\n', "line 1: expected CSV; "),
        (b"tenant,\xff\n", "line 1: expected text in UTF-8"),
    ],
)
def test_a_file_without_a_right_header_is_one_sentence(
    partywall: Partywall, fake: FakeSidecar, content: str | bytes, said: str
) -> None:
    result = partywall("quotas", "reconcile", "--from", "-", stdin=content)
    assert result.exit_code == 1
    assert said in result.stderr
    assert result.stderr.count("\n") == 1
    assert fake.asked == []


@pytest.mark.parametrize("file", ["missing.csv", ".", "a\0b"])
def test_a_file_that_cannot_be_read_is_one_sentence(
    partywall: Partywall, fake: FakeSidecar, file: str
) -> None:
    result = partywall("quotas", "reconcile", "--from", file)
    assert result.exit_code == 1
    assert result.stderr.startswith("cannot read ")
    assert result.stderr.count("\n") == 1
    assert fake.asked == []


def test_a_file_is_worked_on_as_it_is_read(partywall: Partywall, fake: FakeSidecar) -> None:
    """The first tenants are done, whatever comes below; a tenant is read once for its lines."""
    rows = ["tenant,resource,used", "a,users,2", "a,users,3", "b,users,3", '"c', 'x"y,users,1']
    result = partywall("quotas", "reconcile", "--from", "-", stdin="\n".join(rows))
    assert result.exit_code == 1
    assert [method + path[11:] for method, path in fake.asked] == [
        "GET/a/quotas",
        "GET/b/quotas",
        "PUT/b/quotas/users",
    ]
    assert result.stderr.splitlines()[0] == "line 3: a: users: it is on line 2 already"
    assert result.stderr.splitlines()[1].startswith("line 5: expected CSV; ")
    assert result.stdout.splitlines()[-1].startswith("compared 2, drifted 1, repaired 1, failed ")


def test_a_sidecar_that_goes_away_ends_the_file_with_what_was_done(
    partywall: Partywall, fake: FakeSidecar
) -> None:
    def reply(_method: str, path: str) -> Reply:
        return AWAY if "/b/" in path else (200, QUOTAS)

    fake.reply = reply
    file = Path("counts.csv")
    file.write_text("tenant,resource,used\na,users,3\nb,users,3\nc,users,3\n")
    result = partywall("quotas", "reconcile", "--from", str(file))
    assert result.exit_code == 1
    assert result.stdout.splitlines()[-1] == "compared 1, drifted 1, repaired 1, failed 0"
    assert result.stderr == "the database does not answer now; try again\n"
    assert not [path for _, path in fake.asked if "/c/" in path]
