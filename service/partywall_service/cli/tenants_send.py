"""Sends many tenants to a sidecar, a thousand or so at a time."""

import random
import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import httpx
import msgspec

from partywall_service.cli.client import Sidecar
from partywall_service.cli.tenants_file import Row

CHUNK = 1000
"""Tenants of one request: enough for the rate, and few enough for a bar that moves."""

CHUNK_BYTES = 1024 * 1024

TRIES = 5
"""Of a request that the sidecar cannot take now. The pauses double: 15 to 22 s of Retry-After: 1.
"""

LONGEST_PAUSE = 10.0
"""Seconds between two tries, before jitter, whatever Retry-After says."""

_PLACE = re.compile(r"\[(\d+)\]\.?(.*)", re.DOTALL)


class _Error(NamedTuple):
    """What is wrong with a line of a request: its place, and a sentence."""

    place: int
    said: str


class _Fault(msgspec.Struct):
    field: str
    reason: str


class _Problem(msgspec.Struct):
    errors: list[_Fault] = []


class _Imported(msgspec.Struct):
    created: int
    updated: int
    unchanged: int


class TenantsSent:
    """One import, and how far it is.

    Attributes:
        rows: what to send.
        created: how many were new.
        updated: how many were there, and are not what they were.
        unchanged: how many were as the file has them already.
        refused: what the sidecar does not take, each with its sentence.
    """

    def __init__(self, sidecar: Sidecar, rows: Sequence[Row], new_status: str | None) -> None:
        self.rows = rows
        self.created = 0
        self.updated = 0
        self.unchanged = 0
        self.refused: list[tuple[Row, str]] = []
        self._sidecar = sidecar
        self._query = {"new_status": new_status} if new_status else None

    @property
    def so_far(self) -> str:
        """How much of it is done, for when it ends early."""
        done = self.created + self.updated + self.unchanged
        return f"{done:,} of {len(self.rows):,} tenants were imported, and it may be run again"

    def run(self, advance: Callable[[int], None]) -> None:
        """Sends every row; calls `advance` with how many more are done or refused.

        A line whose domain is another tenant's is tried again when all else is done: a later line
        may have given it free.

        Raises:
            CliError: the sidecar cannot be reached, or takes no line at all.
        """
        waiting = self.rows
        while waiting:
            conflicts: list[tuple[Row, str]] = []
            for chunk in _chunks(waiting):
                some = self._send(chunk)
                conflicts += some
                advance(len(chunk) - len(some))
            if len(conflicts) == len(waiting):
                self.refused += conflicts
                advance(len(conflicts))
                return
            waiting = [row for row, _ in conflicts]

    def _send(self, rows: Sequence[Row]) -> list[tuple[Row, str]]:
        """Sends `rows` without those that the sidecar refuses; returns those in conflict."""
        conflicts: list[tuple[Row, str]] = []
        while rows:
            response = self._post(b"[" + b",".join(row.json for row in rows) + b"]")
            errors = _errors(response)
            if not errors:
                answer = self._sidecar.object_of(self._sidecar.checked(response))
                self._count(self._sidecar.read_as(_Imported, answer))
                break
            told: dict[int, str] = {}
            for place, said in errors:
                told[place] = f"{told[place]}; {said}" if place in told else said
            wrong = conflicts if response.status_code == 409 else self.refused
            wrong += [(rows[place], said) for place, said in told.items() if place < len(rows)]
            rows = [row for place, row in enumerate(rows) if place not in told]
        return conflicts

    def _post(self, content: bytes) -> httpx.Response:
        """The sidecar's answer; a 503 only after `TRIES`."""
        tries = 1
        while True:
            response = self._sidecar.send_json(
                "tenants", "import", content=content, query=self._query
            )
            after = response.headers.get("Retry-After")
            if response.status_code != 503 or after is None or tries == TRIES:
                return response
            time.sleep(_pause(after, tries))
            tries += 1

    def _count(self, done: _Imported) -> None:
        self.created += done.created
        self.updated += done.updated
        self.unchanged += done.unchanged


def _chunks(rows: Iterable[Row]) -> Iterator[Sequence[Row]]:
    chunk: list[Row] = []
    size = 0
    for row in rows:
        if len(chunk) == CHUNK or (chunk and size + len(row.json) > CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(row)
        size += len(row.json) + 1
    if chunk:
        yield chunk


def _errors(response: httpx.Response) -> list[_Error]:
    """What the sidecar says of single lines; nothing where it says it of all, or took them."""
    if response.status_code not in (409, 422):
        return []
    try:
        problem = msgspec.json.decode(response.content, type=_Problem)
    except msgspec.MsgspecError:
        return []
    errors = []
    for fault in problem.errors:
        if place := _PLACE.fullmatch(fault.field):
            said = f"{place[2]}: {fault.reason}" if place[2] else fault.reason
            errors.append(_Error(int(place[1]), said))
    return errors


def _pause(after: str, tries: int) -> float:
    """Seconds to wait; jitter, so that all that were refused together do not come together."""
    seconds = float(after) if after.isdecimal() else 1.0  # else it is a date, of another's clock
    return min(seconds * (1 << tries - 1), LONGEST_PAUSE) * random.uniform(1, 1.5)  # noqa: S311 - no secret
