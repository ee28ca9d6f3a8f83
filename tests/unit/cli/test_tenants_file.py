"""What `partywall tenants import` takes for a file of tenants, and all that it says of others."""

from pathlib import Path

import pytest

from partywall_service.api.import_lines import COLUMNS
from partywall_service.cli.errors import CliError
from partywall_service.cli.tenants_file import Row, read_rows
from tests.unit.cli.conftest import Partywall

ONE_OF = f"expected one of {', '.join(COLUMNS)}"


def rows(content: str | bytes) -> list[Row]:
    file = Path("tenants.csv")
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return read_rows(str(file))


def faults(content: str | bytes) -> list[str]:
    with pytest.raises(CliError) as caught:
        rows(content)
    lines = str(caught.value).splitlines()
    assert all(line.startswith("tenants.csv: line ") for line in lines)
    return [line.removeprefix("tenants.csv: line ") for line in lines]


def test_columns_come_in_any_order_and_an_empty_cell_is_left_out() -> None:
    content = (
        "domains,name,tier,status,tenant\n"
        '"Acme.example;b.example acme.example","Acme, ""Ltd""",pro,suspended,acme\n'
        ",,free,,b.c\n"
        " ; , Ähre , free , , d \n"
    )
    acme = (
        b'{"tier":"pro","name":"Acme, \\"Ltd\\"","domains":["acme.example","b.example"],'
        b'"status":"suspended","tenant":"acme"}'
    )
    assert rows(content) == [
        (2, "acme", acme),
        (3, "b.c", b'{"tier":"free","tenant":"b.c"}'),
        (4, "d", '{"tier":"free","name":"Ähre","tenant":"d"}'.encode()),
    ]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("mark", [b"", b"\xef\xbb\xbf"])
def test_any_line_end_and_a_byte_order_mark(end: bytes, mark: bytes) -> None:
    lines = [b"tenant,tier", b"a,free", b"", b",", b"b,pro"]
    found = rows(mark + end.join(lines))
    assert [(row.line, row.tenant) for row in found] == [(2, "a"), (5, "b")]


def test_every_fault_of_every_line_is_told_at_once() -> None:
    long = "x" * 129
    content = (
        "tenant,tier,name,status,domains\n"
        "acme,pro,,,acme.example\n"
        "../x,pro,,,\n"
        "acme,free,,,\n"
        "b,free\n"
        "c,free,,actve,not_a_host! fine.example\n"
        ",,,active,\n"
        "d,a b,,,ACME.example\n"
        "e,free,two\tcells,,\n"
        f"{long},free,,,\n"
        "f,free,,,,\n"
    )
    said = faults(content)
    expected = [
        "3: tenant: expected 1 to 128 letters, digits, '.', '_' or '-'",
        "4: tenant: 'acme' is on line 2 already",
        "5: expected 5 cells, as the header has; got 2",
        "6: domains.0: expected a host name",
        "6: status: expected 'provisioning', 'active' or 'suspended'; got 'actve'",
        "7: tenant: expected 1 to 128 letters",
        "7: tier: expected a value; got none",
        "8: tier: expected 1 to 64 letters",
        "9: name: expected text without line breaks and other control characters",
        "10: tenant: expected 1 to 128 letters",
        "11: expected 5 cells, as the header has; got 6",
    ]
    assert len(said) == len(expected)
    for line, start in zip(said, expected, strict=True):
        assert line.startswith(start)


def test_a_domain_has_one_tenant() -> None:
    content = "tenant,tier,domains\na,free,A.example a.example\nb,free,b.example;a.EXAMPLE\n"
    assert faults(content) == ["3: domains: 'a.example' is on line 2 already"]


def test_broken_csv_and_other_encodings_are_told_line_by_line() -> None:
    content = (
        b'tenant,tier,name\na,free,"x"y\nb,free,\xe4\nc,free,"two\nlines"\nd,free,"open\ne,x,y\n'
    )
    said = faults(content)
    assert [line.split(":")[0] for line in said] == ["2", "3", "4", "6"]
    assert "expected CSV; ',' expected after '\"'" in said[0]
    assert said[1] == "3: expected text in UTF-8"
    assert "control characters" in said[2]
    assert "expected CSV; unexpected end of data" in said[3]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", ["1: expected a header, such as tenant,tier,name,status,domains; got an empty file"]),
        (b"\n\n", ["1: expected a header, such as tenant,tier,name,status,domains; got an empty"]),
        (b"tenant,tier\n", ["1: expected tenants below the header; got none"]),
        ("tenant;tier\na;free\n", ["1: expected commas between the columns; got 'tenant;tier'"]),
        ("tenant\na\n", ["1: expected a column tier"]),
        (
            "tenant,teir,plan\na,b,c\n",
            [
                f"1: column: {ONE_OF}; got 'teir'; did you mean 'tier'?",
                f"1: column: {ONE_OF}; got 'plan'",
                "1: expected a column tier",
            ],
        ),
        ("tenant,tier,tier\na,b,c\n", ["1: expected the column tier once"]),
        ("tenant,tier,\na,b,c\n", ["1: column: expected one of tenant"]),
        ("tenant,tier\na,free\n".encode("utf-16"), ["1: expected text in UTF-8"]),
    ],
)
def test_a_header_that_is_none_is_all_that_is_told(content: str | bytes, said: list[str]) -> None:
    found = faults(content)
    assert len(found) == len(said)
    for line, start in zip(found, said, strict=True):
        assert line.startswith(start)


@pytest.mark.parametrize(
    ("file", "said"), [("none.csv", "No such file"), (".", "directory"), ("a\0b", "null byte")]
)
def test_a_file_that_cannot_be_read_is_one_sentence(file: str, said: str) -> None:
    with pytest.raises(CliError, match=said) as caught:
        read_rows(file)
    assert str(caught.value).startswith("cannot read ")
    assert str(caught.value).isprintable()


def test_a_dry_run_needs_neither_a_sidecar_nor_a_token(partywall: Partywall) -> None:
    good = partywall("tenants", "import", "-", "--dry-run", stdin="tenant,tier\na,free\nb,pro\n")
    assert (good.exit_code, good.stdout, good.stderr) == (0, "2 tenants, no fault found\n", "")
    bad = partywall("tenants", "import", "-", "--dry-run", stdin="tenant,tier\na,free\na,pro\n")
    assert (bad.exit_code, bad.stdout) == (1, "")
    assert bad.stderr == "standard input: line 3: tenant: 'a' is on line 2 already\n"
