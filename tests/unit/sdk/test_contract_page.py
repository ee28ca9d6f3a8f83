"""docs/contract.md, section 6: its snippets run as they stand there, and it names what there is."""

import asyncio
import inspect
import re
from typing import Any

import pytest

from partywall import Partywall, PartywallMiddleware, tenants
from partywall.testing import FakeSidecar
from tests.support.pages import ROOT, blocks
from tests.unit.sdk.asgi import request
from tests.unit.sdk.tokens import SECRET

PAGE = ROOT / "docs" / "contract.md"
SECTION = PAGE.read_text().partition("\n## 6. Python\n")[2]


def table(heading: str) -> list[list[str]]:
    """The cells of the first table with this heading, without its heads."""
    _, _, rows = SECTION.partition(f"\n| {heading} ")[2].partition("\n")
    lines = rows.split("\n\n")[0].splitlines()[1:]
    return [[cell.strip().strip("`") for cell in line[1:-1].split("|")] for line in lines]


async def test_its_snippets_run_and_the_app_that_they_make_is_governed() -> None:
    names: dict[str, Any] = {"TOKEN": "a-host-token", "KEY": SECRET}
    for snippet in blocks(PAGE, "python"):
        exec(compile(snippet, str(PAGE), "exec"), names)
    with FakeSidecar({"free": {"limits": {"requests": "3/hour", "exports": "5/hour"}}}):
        assert await names["room_for_an_export"]()
        assert not await asyncio.to_thread(names["the_same"])
        assert (await request(names["app"], "/exports", method="POST")).status == 429
        assert (await request(names["app"], "/analytics")).status == 402
    assert "402" in names["app"].openapi()["paths"]["/analytics"]["get"]["responses"]


def test_it_lists_the_middlewares_parameters_with_their_defaults() -> None:
    parameters = dict(inspect.signature(PartywallMiddleware).parameters)
    del parameters["app"]
    rows = table("parameter")
    assert [name for name, *_ in rows] == list(parameters)
    for name, default, _ in rows:
        if re.fullmatch(r'"\w+"|[\d.]+|True', default):
            assert default.replace('"', "'") == repr(parameters[name].default), name


@pytest.mark.parametrize("call", [row[0] for row in table("call")])
def test_it_lists_calls_as_the_client_takes_them(call: str) -> None:
    name, _, arguments = call.partition("(")
    signature = inspect.signature(getattr(Partywall, name))
    taken = [
        str(one.replace(annotation=inspect.Parameter.empty))
        for one in signature.parameters.values()
    ]
    listed = [one.strip().replace('"', "'") for one in arguments.rstrip(")").split(",")]
    assert [one for one in listed if one != "*"] == taken[1:]


def test_it_lists_what_a_job_can_be_enqueued_with() -> None:
    signature = inspect.signature(Partywall.enqueue)
    taken = [
        str(one.replace(annotation=inspect.Parameter.empty))
        for one in signature.parameters.values()
    ]
    enqueue = table("jobs")[0][0]
    assert enqueue == f"enqueue({', '.join(taken[1:])})"


@pytest.mark.parametrize("made", [row[0] for row in table("`partywall.tenants`")])
def test_it_lists_what_names_a_tenant_by_the_arguments_there_are(made: str) -> None:
    name, _, arguments = made.partition("(")
    parameters = inspect.signature(getattr(tenants, name)).parameters
    for listed in re.findall(r"(\w+)=", arguments):
        assert listed in parameters
