"""`POST /v1/tenants/import`, on a real PostgreSQL."""

import asyncio
import json
import random
from collections.abc import Sequence
from typing import Any

import httpx
import pytest

from partywall_service.api.import_lines import MAX_LINES
from partywall_service.api.tenants_import import MAX_ERRORS
from tests.support.api import Caller, fields_of, problem_of

PATH = "/v1/tenants/import"
Line = dict[str, Any]


async def send_csv(caller: Caller, content: str | bytes, **headers: str) -> httpx.Response:
    body = content.encode() if isinstance(content, str) else content
    return await caller.http.post(
        PATH, content=body, headers={"Content-Type": "text/csv", **headers}
    )


async def imported(caller: Caller, lines: Sequence[Line], query: str = "") -> dict[str, int]:
    answer = await caller.post(PATH + query, list(lines))
    assert answer.status_code == 200, answer.text
    counts: dict[str, int] = answer.json()
    return counts


def counts(created: int = 0, updated: int = 0, unchanged: int = 0) -> dict[str, int]:
    return {"created": created, "updated": updated, "unchanged": unchanged}


async def tenant(caller: Caller, name: str) -> dict[str, Any]:
    record: dict[str, Any] = (await caller.get(f"/v1/tenants/{name}")).json()
    return record


async def lines_about(caller: Caller, name: str) -> list[list[Any]]:
    entries = (await caller.get("/v1/audit", tenant=name)).json()["entries"]
    return [[entry["action"], entry["detail"]] for entry in entries]


def some_lines(seed: int, count: int) -> list[Line]:
    """Lines of all kinds; a domain of each stays where it is, another goes to the next tenant."""
    chance = random.Random(seed)
    lines = []
    for number in range(count):
        line: Line = {"tenant": f"t{number}", "tier": chance.choice(["free", "pro"])}
        if chance.random() < 0.5:
            line["name"] = f"Tenant {chance.randrange(3)}"
        if chance.random() < 0.3:
            line["status"] = chance.choice(["active", "suspended", "provisioning"])
        line["domains"] = [f"Own{number}.example", f"d{(number + seed) % count}.example"]
        lines.append(line)
    return lines


def told(record: dict[str, Any]) -> dict[str, Any]:
    return {key: record[key] for key in ("name", "tier", "status", "domains")}


def as_if_first(value: Any) -> Any:
    """What belongs to `p-t7` as if it belonged to `t7`."""
    return json.loads(json.dumps(value).replace("p-", ""))


async def test_thousands_are_as_so_many_puts_would_leave_them(admin: Caller) -> None:
    count = 5000
    first, second = some_lines(0, count), some_lines(1, count)
    second[99]["domains"].pop()  # of one of the next hundred, which stay as they are
    del second[100:200]
    assert await imported(admin, first) == counts(created=count)
    assert await imported(admin, first) == counts(unchanged=count)
    assert await imported(admin, second) == counts(updated=count - 100)
    sample = {f"t{number}" for number in range(0, 200, 5)}  # none wants what another has
    for line in [*first, *second]:
        if line["tenant"] in sample:
            body = {**line, "domains": [f"p-{domain}" for domain in line["domains"]]}
            answer = await admin.put(f"/v1/tenants/p-{body.pop('tenant')}", body)
            assert answer.status_code < 300, answer.text
    for name in sample:
        mine, other = await tenant(admin, name), await tenant(admin, f"p-{name}")
        assert told(mine) == as_if_first(told(other))
        assert await lines_about(admin, name) == as_if_first(await lines_about(admin, f"p-{name}"))
        is_second = int(name[1:]) not in range(100, 200)
        assert (mine["updated_at"] > mine["created_at"]) == is_second


async def test_a_domain_of_another_tenant_changes_nothing(admin: Caller) -> None:
    await imported(admin, [{"tenant": "old", "tier": "free", "domains": ["a.example"]}])
    lines = [
        {"tenant": "new", "tier": "pro", "domains": ["new.example"]},
        {"tenant": "b", "tier": "pro", "domains": ["b.example", "A.example"]},
        {"tenant": "old", "tier": "pro"},
    ]
    said = "domain 'a.example' belongs to tenant 'old'"
    problem = problem_of(await admin.post(PATH, lines), 409, "conflict")
    assert problem["errors"] == [{"field": "[1].domains", "reason": said}]
    content = "tenant,tier,domains\nnew,pro,\n\nb,pro,a.example\n"
    problem = problem_of(await send_csv(admin, content), 409, "conflict")
    assert problem["errors"] == [{"field": "line 4: domains", "reason": said}]
    listed = (await admin.get("/v1/tenants")).json()["tenants"]
    assert [(one["tenant"], one["tier"]) for one in listed] == [("old", "free")]
    # All of it may come to pass where the holder lets go in the same list.
    lines[2]["domains"] = []
    assert await imported(admin, lines) == counts(created=2, updated=1)
    assert (await tenant(admin, "b"))["domains"] == ["a.example", "b.example"]


async def test_domains_go_round_in_one_list(admin: Caller) -> None:
    ring = [{"tenant": f"t{n}", "tier": "free", "domains": [f"d{n}.example"]} for n in range(3)]
    await imported(admin, ring)
    for n, line in enumerate(ring):
        line["domains"] = [f"d{(n + 1) % 3}.example"]
    assert await imported(admin, ring) == counts(updated=3)
    assert [(await tenant(admin, f"t{n}"))["domains"] for n in range(3)] == [
        ["d1.example"],
        ["d2.example"],
        ["d0.example"],
    ]


async def test_every_fault_of_a_list_is_told_and_nothing_is_changed(admin: Caller) -> None:
    lines: list[Any] = [
        {"tenant": "good", "tier": "pro"},
        {"tenant": "../x", "tier": "pro", "colour": "red"},
        {"tenant": "b"},
        "acme,pro",
        {"tenant": "c", "tier": 7, "status": "asleep", "domains": ["not a host"]},
    ]
    answer = await admin.post(PATH, lines)
    assert fields_of(answer) == [
        "[1].tenant",
        "[1].colour",
        "[2].tier",
        "[3]",
        "[4].tier",
        "[4].domains.0",
        "[4].status",
    ]
    assert "nothing was changed" in answer.json()["detail"]
    lines = [
        {"tenant": "a", "tier": "gold"},
        {"tenant": "b", "tier": "pro", "domains": ["x.example"]},
        {"tenant": "a", "tier": "pro"},
        {"tenant": "c", "tier": "pro", "domains": ["X.example", "y.example"]},
    ]
    errors = problem_of(await admin.post(PATH, lines), 422, "invalid-request")["errors"]
    assert [(error["field"], error["reason"]) for error in errors] == [
        ("[0].tier", "expected one of free, pro, enterprise; got 'gold'"),
        ("[2].tenant", "'a' is at [0] already"),
        ("[3].domains", "'x.example' is at [1] already"),
    ]
    assert (await admin.get("/v1/tenants")).json()["tenants"] == []


async def test_csv_says_the_same(admin: Caller) -> None:
    content = (
        "\ufefftier,tenant,domains,name,status\r\n"
        'pro,acme,"A.example; b.example","Acme, ""Ltd""",suspended\r\n'
        ",,,,\r\n"
        "free,b,,,\r\n"
    )
    for sent in (content, content.encode()):
        answer = await send_csv(admin, sent)
        assert answer.status_code == 200, answer.text
    assert answer.json() == counts(unchanged=2)
    acme = await tenant(admin, "acme")
    assert told(acme) == {
        "name": 'Acme, "Ltd"',
        "tier": "pro",
        "status": "suspended",
        "domains": ["a.example", "b.example"],
    }


@pytest.mark.parametrize(
    ("content", "fields"),
    [
        (b"", ["line 1"]),
        (b"tenant;tier\na;free\n", ["line 1"]),
        (b"tenant,plan\na,free\n", ["line 1: column", "line 1"]),
        (b"tenant,tier\na,free\n\nb\n", ["line 4"]),
        (b"tenant,tier,name\na,free,\xe4\nb,gold,\n", ["line 2", "line 3: tier"]),
        (b'tenant,tier,name\na,free,"two\nlines"\na,free,"open\n', ["line 2: name", "line 4"]),
        (b"tenant,tier\na,free\na,pro\n", ["line 3: tenant"]),
        ("tenant,tier\na,free\n".encode("utf-16"), ["line 1"]),
    ],
)
async def test_faults_of_csv_have_its_lines(
    admin: Caller, content: bytes, fields: list[str]
) -> None:
    assert fields_of(await send_csv(admin, content)) == fields


@pytest.mark.parametrize("name", ["=1+1", "+49 30", "-1", "@home", "Ähre Größe 東京", "a'b\"c\\"])
async def test_a_name_is_kept_as_it_is(admin: Caller, name: str) -> None:
    cell = name.replace('"', '""')
    assert (await send_csv(admin, f'tenant,tier,name\na,free,"{cell}"\n')).status_code == 200
    assert (await tenant(admin, "a"))["name"] == name


@pytest.mark.parametrize(
    ("kind", "content", "field"),
    [
        ("", "[]", "content-type"),
        ("text/plain", "tenant,tier\na,free\n", "content-type"),
        ("text/csv; charset=latin-1", "tenant,tier\na,free\n", "content-type"),
        ("application/json", "tenant,tier\na,free\n", "body"),
        ("application/json", '{"tenants": []}', "body"),
        ("application/json", "", "body"),
        ("application/json", '"x"', "body"),
        ("application/json; charset=UTF-8", b'[{"tenant": "\xff", "tier": "x"}]', "body"),
    ],
)
async def test_what_is_neither_json_nor_csv_is_refused(
    admin: Caller, kind: str, content: str | bytes, field: str
) -> None:
    answer = await admin.http.post(PATH, content=content, headers={"Content-Type": kind})
    assert fields_of(answer) == [field]


async def test_there_is_an_end_to_what_one_call_may_hold(admin: Caller) -> None:
    lines = [{"tenant": f"t{n}", "tier": "gold"} for n in range(MAX_LINES)]
    problem = problem_of(await admin.post(PATH, lines), 422, "invalid-request")
    assert len(problem["errors"]) == MAX_ERRORS
    assert problem["detail"].endswith("; and 9,997 more")
    lines.append({"tenant": "one-too-many", "tier": "pro"})
    assert fields_of(await admin.post(PATH, lines)) == ["body"]
    content = "tenant,tier\n" + "".join(f"t{n},pro\n" for n in range(MAX_LINES + 1))
    assert fields_of(await send_csv(admin, content)) == [f"line {MAX_LINES + 2}"]
    assert fields_of(await admin.post(PATH, [[]] * 1_000_000)) == ["body"]
    large = [{"tenant": "a", "tier": "pro", "name": "x" * 5_000_000}]
    problem_of(await admin.post(PATH, large), 413, "too-large")
    assert (await admin.get("/v1/tenants")).json()["tenants"] == []
    assert await imported(admin, []) == counts()


async def test_new_tenants_may_begin_in_provisioning(admin: Caller) -> None:
    await imported(admin, [{"tenant": "old", "tier": "free"}])
    lines = [
        {"tenant": "old", "tier": "pro"},
        {"tenant": "new", "tier": "pro"},
        {"tenant": "own", "tier": "pro", "status": "suspended"},
    ]
    counted = await imported(admin, lines, "?new_status=provisioning")
    assert counted == counts(created=2, updated=1)
    assert [(await tenant(admin, one))["status"] for one in ("old", "new", "own")] == [
        "active",
        "provisioning",
        "suspended",
    ]
    assert fields_of(await admin.post(f"{PATH}?new_status=asleep", lines)) == ["new_status"]


async def test_only_hosts_and_admins_may(admin: Caller) -> None:
    await imported(await admin.caller("host"), [{"tenant": "acme", "tier": "pro"}])
    (line,) = (await admin.get("/v1/audit", tenant="acme")).json()["entries"]
    assert line["actor"].startswith("host (")
    own = await admin.caller("tenant:acme")
    problem_of(await own.post(PATH, [{"tenant": "acme", "tier": "enterprise"}]), 403, "forbidden")
    # Who it is comes first: nobody's four megabytes are read.
    nobody = admin.with_token(None)
    problem_of(await nobody.post(PATH, "nonsense"), 401, "unauthenticated")


async def test_a_tenant_may_be_called_import(admin: Caller) -> None:
    assert (await admin.put("/v1/tenants/import", {"tier": "pro"})).status_code == 201
    assert (await tenant(admin, "import"))["tier"] == "pro"
    assert (await admin.delete("/v1/tenants/import")).status_code == 204


async def test_lists_and_puts_at_once_end_in_one_of_their_orders(admin: Caller) -> None:
    names = [f"t{n}" for n in range(30)]

    def lines(tier: str) -> list[Line]:
        given = [{"tenant": name, "tier": tier, "domains": [f"{name}.example"]} for name in names]
        random.shuffle(given)
        return given

    answers = await asyncio.gather(
        *(admin.post(PATH, lines(tier)) for tier in ("free", "pro", "enterprise") * 3),
        *(
            admin.put(f"/v1/tenants/{name}", {"tier": "pro", "domains": [f"{name}.example"]})
            for name in names[::3]
        ),
        *(admin.delete(f"/v1/tenants/{name}") for name in names[::5]),
    )
    assert {answer.status_code for answer in answers} <= {200, 201, 204}
