"""The admin's HTTP client: finds the sidecar and a token, and turns every failure into a sentence.

Source: docs/contract.md section 4; RFC 9457 for problems.
"""

import ipaddress
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import quote

import httpx
import msgspec

from partywall_service.admin_token import FILE
from partywall_service.cli.errors import CliError, UsageError
from partywall_service.listening import UNIX, CannotListen, socket_path

TIMEOUT_SECONDS = 30.0
PAGE_SIZE = 1000
"""The largest page the API gives."""

PAGE_TRIES = 3
"""Of a page that the sidecar cannot give now."""

LONGEST_PAUSE = 5
"""Seconds before another try, whatever Retry-After says."""

REFUSALS = frozenset({404, 409, 413, 422})
"""Statuses of what this very request asks: they say nothing about the next one."""

KEY_HEADER = "Idempotency-Key"

_T = TypeVar("_T")


class Refused(CliError):
    """The sidecar refuses this very request (`REFUSALS`); another may be taken."""


class Conflict(Refused):
    """It does not fit what is there now."""


class Unanswered(CliError):
    """Nobody knows whether the request was done: the answer is missing, or says so."""


class Token(NamedTuple):
    """A token, and where it is from: what to say when it is refused."""

    text: str
    source: str


class Sidecar:
    """One sidecar's REST API; close it, or use it in a `with`.

    Args:
        url: where it listens, with or without a path before `/v1`; or `unix:` and the path of its
            socket.
        token: what it is shown.
    """

    def __init__(self, url: str, token: Token) -> None:
        self.url = url.rstrip("/")
        self._token = token
        socket: str | None = None
        try:
            if url.startswith(UNIX):
                socket = str(socket_path(url))
            parsed = httpx.URL("http://localhost" if socket else self.url)
        except CannotListen as exc:
            raise UsageError(str(exc)) from exc
        except (httpx.InvalidURL, ValueError) as exc:
            raise _not_a_url(url) from exc
        if parsed.scheme not in ("http", "https") or not parsed.host or (parsed.port or 0) > 65535:
            raise _not_a_url(url)
        # A proxy meant for the world would be handed the admin's token for this machine.
        trust_env = not _is_loopback(parsed.host)
        try:
            self._http = httpx.Client(
                base_url=parsed,
                headers={"Authorization": f"Bearer {token.text}"},
                timeout=TIMEOUT_SECONDS,
                trust_env=trust_env,
                transport=httpx.HTTPTransport(uds=socket) if socket else None,
            )
        except (OSError, ValueError, ImportError) as exc:  # a CA file or a proxy of the environment
            raise CliError(f"cannot set up a connection to {self.url}: {exc}") from exc

    @classmethod
    def find(cls, url: str | None) -> Self:
        """The sidecar of `--url` or the environment, with the token of the environment or disk.

        Raises:
            CliError: there is no token.
            UsageError: the URL is none.
        """
        url = url or f"http://127.0.0.1:{os.environ.get('PARTYWALL_PORT') or 8080}"
        return cls(url, find_token())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._http.close()

    def get(self, *path: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """Reads one thing; `path` follows `/v1` and is quoted here."""
        return self.object_of(self._request("GET", path, query=query))

    def find_one(self, *path: str) -> dict[str, Any] | None:
        """Reads one thing; None when there is none."""
        response = self._send("GET", path)
        if response.status_code == 404 and problem_of(response) is not None:
            return None
        return self.object_of(self.checked(response))

    def put(self, *path: str, body: Mapping[str, Any]) -> tuple[dict[str, Any], bool]:
        """Writes one thing; also says whether it is new."""
        response = self._request("PUT", path, body=body)
        return self.object_of(response), response.status_code == 201

    def post(self, *path: str, body: Mapping[str, Any], key: str | None = None) -> dict[str, Any]:
        """Makes one thing; with an idempotency `key`, once however often it is asked."""
        return self.object_of(self._request("POST", path, body=body, key=key))

    def delete(self, *path: str) -> dict[str, Any]:
        """Removes one thing; gives what the answer says of it, mostly nothing."""
        response = self._request("DELETE", path)
        return self.object_of(response) if response.content else {}

    def list(
        self,
        key: str,
        *path: str,
        filters: Mapping[str, str] | None = None,
        at_most: int | None = None,
    ) -> Iterator[dict[str, Any]]:
        """Every item of a list, through all of its pages.

        Args:
            key: where a page has its items.
            path: as for `get`.
            filters: query parameters.
            at_most: how many the caller will take; no page is larger than that.
        """
        size = PAGE_SIZE if at_most is None else min(at_most, PAGE_SIZE)
        query = {**(filters or {}), "page_size": str(size)}
        while True:
            page = self.object_of(self._page(path, query))
            items, cursor = page.get(key), page.get("next_cursor")
            if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
                raise self._no_sidecar()
            yield from items
            if not cursor:
                return
            query["cursor"] = str(cursor)

    def _page(self, path: tuple[str, ...], query: Mapping[str, str]) -> httpx.Response:
        """A page of a list, asked for again where the sidecar says when.

        A list of many pages would else be given up, whole, for one moment's stall.
        """
        for _ in range(PAGE_TRIES - 1):
            response = self._send("GET", path, query=query)
            after = response.headers.get("Retry-After", "")
            if response.status_code != 503 or not after.isdecimal():
                return self.checked(response)
            time.sleep(min(int(after), LONGEST_PAUSE))
        return self._request("GET", path, query=query)

    def send_json(
        self, *path: str, content: bytes, query: Mapping[str, str] | None = None
    ) -> httpx.Response:
        """The answer to a POST of JSON that is written already, whatever its status."""
        with self._telling():
            return self._http.post(
                _path_of(*path),
                content=content,
                params=query,
                headers={"Content-Type": "application/json"},
            )

    @contextmanager
    def lines(self, *path: str) -> Iterator[Iterator[bytes]]:
        """The lines of a long answer, as they come; they may end before all of them are there.

        Raises:
            CliError: there is no such answer, or the connection failed in its middle.
        """
        with self._telling(), self._http.stream("GET", _path_of(*path)) as response:
            if not response.is_success:
                response.read()
            self.checked(response)
            yield _lines(response.iter_bytes())

    def text(self, answer: Mapping[str, Any], field: str) -> str:
        """A field of an answer that the command cannot do without.

        Raises:
            CliError: it is not there.
        """
        value = answer.get(field)
        if not isinstance(value, str):
            raise self._no_sidecar()
        return value

    def read_as(self, kind: type[_T], answer: Mapping[str, Any]) -> _T:
        """An answer as the struct that it should be; fields that are new to it are left out.

        Raises:
            CliError: it is none.
        """
        try:
            return msgspec.convert(answer, kind)
        except msgspec.ValidationError as exc:
            raise self._no_sidecar() from exc

    def _request(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        return self.checked(self._send(method, path, query=query, body=body, key=key))

    def _send(
        self,
        method: str,
        path: tuple[str, ...],
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> httpx.Response:
        headers = None if key is None else {KEY_HEADER: key}
        with self._telling():
            return self._http.request(
                method, _path_of(*path), params=query, json=body, headers=headers
            )

    @contextmanager
    def _telling(self) -> Iterator[None]:
        """Turns what can go wrong with a request inside into a sentence.

        Raises:
            CliError: there is no sidecar to send it to.
            Unanswered: it was sent, and there is no answer.
            UsageError: the URL is none.
        """
        try:
            yield
        except httpx.ConnectError as exc:
            raise CliError(
                f"no sidecar answers at {self.url} ({exc}): start one with "
                "`partywall serve`, or name it with --url"
            ) from exc
        except httpx.TimeoutException as exc:
            raise Unanswered(
                f"the sidecar at {self.url} did not answer within {TIMEOUT_SECONDS:.0f} s"
            ) from exc
        except UnicodeError as exc:  # a host that only looking it up refuses
            raise _not_a_url(self.url) from exc
        except (httpx.HTTPError, httpx.InvalidURL) as exc:
            raise Unanswered(f"the connection to the sidecar at {self.url} failed: {exc}") from exc

    def checked(self, response: httpx.Response) -> httpx.Response:
        """The response, if it is a success.

        Raises:
            CliError: it is not; the sentence is the sidecar's own where it has one. `Refused`,
                `Conflict` and `Unanswered` where the status says so.
        """
        if response.is_success:
            return response
        problem = problem_of(response)
        error = _error_of(response.status_code)
        if problem is None:
            raise (error if error is Unanswered else CliError)(
                f"{self.url} answered {response.status_code} and no problem+json; "
                "is it a Partywall sidecar?"
            )
        if response.status_code == 401:
            raise CliError(
                f"the sidecar at {self.url} does not take the token from {self._token.source}"
            )
        raise error(problem)

    def object_of(self, response: httpx.Response) -> dict[str, Any]:
        """The JSON object a successful response has.

        Raises:
            CliError: it has none.
        """
        try:
            answer = response.json()
        except ValueError as exc:
            raise self._no_sidecar() from exc
        if not isinstance(answer, dict):
            raise self._no_sidecar()
        return answer

    def _no_sidecar(self) -> CliError:
        return CliError(f"{self.url} answered something else than a Partywall sidecar")


def _lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """Without their ends; httpx would also break them within a text, at what Unicode calls one."""
    rest = b""
    for part in parts:
        *lines, rest = (rest + part).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _path_of(*path: str) -> str:
    """The path of a thing in the API; `path` follows `/v1`."""
    return "/".join(("/v1", *(quote(part, safe="") for part in path)))


def find_token() -> Token:
    """PARTYWALL_TOKEN, PARTYWALL_ADMIN_TOKEN, or what `serve` keeps in its data directory.

    Raises:
        CliError: none of them is there, or it is no token.
    """
    for name in ("PARTYWALL_TOKEN", "PARTYWALL_ADMIN_TOKEN"):
        if text := os.environ.get(name):
            return _sendable(Token(text, name))
    path = Path(os.environ.get("PARTYWALL_DATA_DIR") or ".partywall") / FILE
    try:
        return _sendable(Token(path.read_text().strip(), str(path)))
    except FileNotFoundError as exc:
        raise CliError(
            f"there is no token: set PARTYWALL_TOKEN, or run this where {path} is"
        ) from exc
    except (OSError, UnicodeDecodeError) as exc:
        reason = getattr(exc, "strerror", None) or "it is not text"
        raise CliError(f"cannot read the token in {path}: {reason}") from exc


def _sendable(token: Token) -> Token:
    if not token.text or not token.text.isascii() or not token.text.isprintable():
        raise CliError(f"expected a token in {token.source}, printable ASCII characters")
    return token


def problem_of(response: httpx.Response) -> str | None:
    """The sentence of a problem+json answer; None when it is none."""
    try:
        problem = response.json()
    except ValueError:
        return None
    if not isinstance(problem, dict):
        return None
    detail = problem.get("detail") or problem.get("title")
    return " ".join(detail.split()) if isinstance(detail, str) else None


def _error_of(status: int) -> type[CliError]:
    if status >= 500:
        return Unanswered
    if status == 409:
        return Conflict
    return Refused if status in REFUSALS else CliError


def _not_a_url(url: str) -> UsageError:
    return UsageError(f"expected the sidecar's URL, such as http://127.0.0.1:8080, got {url!r}")


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
