"""What stands where a sidecar is expected, and answers what a test says."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, object]
"""A status and a body; status 0 hangs up."""


class FakeSidecar(ThreadingHTTPServer):
    """Answers as `reply(method, path)` says; remembers what it was asked."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.reply: Callable[[str, str], Reply] = lambda _method, _path: (200, {})
        self.retry_after: str | None = None
        self.asked: list[tuple[str, str]] = []
        self.keys: list[str | None] = []
        self.bodies: list[Any] = []


class _Handler(BaseHTTPRequestHandler):
    server: FakeSidecar

    def do_GET(self) -> None:
        content = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.asked.append((self.command, self.path))
        self.server.keys.append(self.headers["Idempotency-Key"])
        self.server.bodies.append(json.loads(content) if content else None)
        status, body = self.server.reply(self.command, self.path)
        if status == 0:  # hang up
            self.close_connection = True
            return
        answer = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        if status == 503 and self.server.retry_after is not None:
            self.send_header("Retry-After", self.server.retry_after)
        self.end_headers()
        self.wfile.write(answer)

    do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815 - the base class's naming

    def log_message(self, *_: object) -> None:
        """Nothing to the terminal."""


@contextmanager
def serving() -> Iterator[FakeSidecar]:
    """One, listening."""
    with FakeSidecar() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
