"""Where a sidecar is, and how to get there."""

import functools
import ipaddress
import ssl
from typing import NamedTuple

import httpx

from partywall.errors import ConfigurationError

DEFAULT = "http://127.0.0.1:8080"

KEEP_ALIVE_SECONDS = 4.0
"""An idle connection is dropped after so long: just before uvicorn does it (5 s), so that no
request meets a connection that is being closed under it."""

_EXPECTED = (
    "expected the sidecar's URL, such as http://127.0.0.1:8080, https://partywall.internal or "
    "unix:///run/partywall.sock"
)


class Address(NamedTuple):
    """A sidecar's place.

    Attributes:
        text: as it was given.
        url: what paths are put behind.
        socket: the path of its Unix socket, or None for TCP.
    """

    text: str
    url: httpx.URL
    socket: str | None = None


def parse(text: str) -> Address:
    """Reads the URL of a sidecar.

    Raises:
        ConfigurationError: it is none.
    """
    if text.startswith("unix:"):
        return _unix(text)
    try:
        url = httpx.URL(text.rstrip("/"))
        host = url.host.encode("idna") if not _is_ip(url.host) else url.host
    except (httpx.InvalidURL, ValueError, TypeError) as exc:
        raise ConfigurationError(f"{_EXPECTED}; got {_shown(text)}") from exc
    if url.userinfo:
        raise ConfigurationError(
            "expected the sidecar's URL without a user and password: the token is an argument of "
            "its own"
        )
    if (
        url.scheme not in ("http", "https")
        or not host
        or not 0 < (url.port or 80) < 65536
        or url.query
        or url.fragment
    ):
        raise ConfigurationError(f"{_EXPECTED}; got {_shown(text)}")
    return Address(text, url)


def connect(address: Address, most: int) -> httpx.AsyncHTTPTransport:
    """A pool of connections to a sidecar.

    Proxies of the environment are never used: they are for the world, a sidecar is a neighbour, and
    they would be shown its token. SSL_CERT_FILE and SSL_CERT_DIR are heeded.

    Args:
        address: where to.
        most: connections at once.

    Raises:
        ConfigurationError: the certificates that the environment names cannot be read.
    """
    return httpx.AsyncHTTPTransport(
        verify=certificates() if address.url.scheme == "https" else _none_needed(),
        limits=httpx.Limits(
            max_connections=most,
            max_keepalive_connections=most,
            keepalive_expiry=KEEP_ALIVE_SECONDS,
        ),
        uds=address.socket,
    )


def _unix(text: str) -> Address:
    path = text.removeprefix("unix:").removeprefix("//")
    if not path.startswith("/") or path.endswith("/") or "\0" in path:
        raise ConfigurationError(
            f"expected an absolute path after unix://, as in unix:///run/partywall.sock; "
            f"got {_shown(text)}"
        )
    return Address(text, httpx.URL("http://localhost"), path)


@functools.cache
def certificates() -> ssl.SSLContext:
    """What to trust, of the environment or as httpx ships it.

    Read once: it takes tens of milliseconds, of every event loop that would do it.

    Raises:
        ConfigurationError: what the environment names cannot be read.
    """
    try:
        return httpx.create_ssl_context()
    except (OSError, ValueError) as exc:
        raise ConfigurationError(f"cannot read the certificates to trust: {exc}") from exc


@functools.cache
def _none_needed() -> ssl.SSLContext:
    """For plain HTTP, where nothing is verified: without reading any certificates."""
    return ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def _is_ip(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _shown(text: object) -> str:
    shown = ascii(text)
    return shown if len(shown) <= 100 else f"{shown[:97]}..."
