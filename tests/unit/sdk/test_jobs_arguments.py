"""What a job can be enqueued with, and what is refused before anything is sent."""

import math
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from enum import IntEnum, StrEnum
from typing import Any, NamedTuple

import pytest

from partywall import ConfigurationError, InvalidRequest, Partywall
from partywall.testing import FakeSidecar


class Colour(StrEnum):
    RED = "red"


class Size(IntEnum):
    LARGE = 3


class Point(NamedTuple):
    x: int
    y: int


async def test_what_json_carries_arrives_as_it_is() -> None:
    given = [None, True, 0.1, 2**70, "ü\n", [], {"a b": [1, {"": 2}]}]
    async with FakeSidecar() as sidecar, Partywall() as pw:
        await pw.enqueue("acme", "f", *given, **{"a b": 1})
        await pw.enqueue(
            "acme", "f", (1, (2,)), Point(3, 4), Colour.RED, Size.LARGE, {Colour.RED: 1}
        )
        plain, kinds = sidecar.jobs("acme")
        assert plain.args == tuple(given)
        assert plain.kwargs == {"a b": 1}
        assert kinds.args == ([1, [2]], [3, 4], "red", 3, {"red": 1})
        assert type(kinds.args[2]) is str


ITSELF: list[Any] = []
ITSELF.append(ITSELF)


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((datetime(2030, 1, 1, tzinfo=UTC),), {}, r"args\[0\]: expected what JSON carries"),
        ((1, {"when": datetime(2030, 1, 1, tzinfo=UTC)}), {}, r"args\[1\]\.when: .*; got datetime"),
        ((), {"to": {"a b": [b"x"]}}, r"kwargs\.to\['a b'\]\[0\]: expected what JSON .*; got b'x'"),
        (({1, 2},), {}, r"args\[0\]: .*; got \{1, 2\}"),
        ((math.nan,), {}, r"args\[0\]: .*a finite number.*; got nan"),
        (([-math.inf],), {}, r"args\[0\]\[0\]: .*; got -inf"),
        (({1: 2},), {}, r"args\[0\]: expected a mapping by text; got \{1: 2\}"),
        ((), {"x": 1 + 2j}, r"kwargs\.x: expected what"),
        (("\ud800",), {}, r"args\[0\]: expected text that UTF-8 carries"),
        ((), {"\ud800": 1}, r"kwargs: expected text that UTF-8 carries"),
        ((10**4300,), {}, r"args\[0\]: expected a whole number of at most 4300 digits"),
        ((ITSELF,), {}, r"args\[0\]\[0\]\[0\].*: expected lists and mappings at most 100 deep"),
    ],
)
async def test_what_json_cannot_carry_is_refused_before_it_is_sent_with_its_place(
    args: Any, kwargs: Any, said: str
) -> None:
    async with Partywall("http://127.0.0.1:1", "t") as pw:
        with pytest.raises(InvalidRequest, match=f"^{said}"):
            await pw.enqueue("acme", "f", *args, **kwargs)


async def test_other_arguments_that_can_be_none_are_refused_too() -> None:
    def enqueue(**options: Any) -> Callable[[Partywall], Awaitable[Any]]:
        return lambda pw: pw.enqueue("acme", "f", **options)

    function: Any = len
    naive = datetime(2030, 1, 1)  # noqa: DTZ001 - what is refused
    calls: list[tuple[Callable[[Partywall], Any], str]] = [
        (lambda pw: pw.enqueue("a b", "f"), "tenant"),
        (lambda pw: pw.enqueue("acme", ""), "function"),
        (lambda pw: pw.enqueue("acme", "f" * 201), "function"),
        (lambda pw: pw.enqueue("acme", function), "function"),
        (enqueue(_job_id="a b"), "_job_id"),
        (enqueue(_job_id="a" * 201), "_job_id"),
        (enqueue(_job_id="purge"), "_job_id"),
        (enqueue(_priority=10), "_priority"),
        (enqueue(_priority=True), "_priority"),
        (enqueue(_defer_by=-1), "_defer_by"),
        (enqueue(_defer_by=math.nan), "_defer_by"),
        (enqueue(_defer_by="1"), "_defer_by"),
        (enqueue(_defer_by=timedelta(days=36_526)), "_defer_by"),
        (enqueue(_defer_until=naive), "_defer_until"),
        (enqueue(_defer_until=0), "_defer_until"),
        (enqueue(_defer_by=0, _defer_until=datetime.now(UTC)), "_defer_until"),
        (enqueue(_idempotency_key="a b"), "_idempotency_key"),
        (enqueue(_queue_name="other"), "_queue_name"),
        (lambda pw: pw.get_job("acme", ""), "job_id"),
        (lambda pw: pw.get_job("acme", ".."), "job_id"),
        (lambda pw: pw.cancel_job("a b", "j"), "tenant"),
        (lambda pw: pw.retry_job("acme", "pause"), "job_id"),
        (lambda pw: pw.pause_jobs("a b"), "tenant"),
        (lambda pw: anext(pw.list_jobs("acme", "gone")), "status"),  # type: ignore[arg-type] # what is refused
    ]
    async with Partywall("http://127.0.0.1:1", "t") as pw:
        for call, field in calls:
            with pytest.raises(InvalidRequest) as raised:
                await call(pw)
            assert [name for name, _ in raised.value.errors] == [field]
        with pytest.raises(InvalidRequest, match=r"^job_id: expected a job's id"):
            pw.job("acme", "a/b")
        with pytest.raises(ConfigurationError, match="timeout in seconds, above 0"):
            await pw.job("acme", "one").result(timeout=-1)
