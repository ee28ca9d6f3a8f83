"""How a request tells whose it is.

A resolver is a callable of the ASGI scope that returns the tenant's id, None where the request
names no tenant in this way, or an awaitable of either. It must not change the scope. It may raise:

- `TenantConflict`: two tenants are named (403);
- `InvalidCredentials`: a token was presented that is not valid (401), whatever else names a tenant;
- `KeysUnavailable`, `SidecarError`: it cannot be told now.

`FromJWT` needs `pip install 'partywall[jwt]'`; nothing else here does.
"""

import inspect
import re
from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, NoReturn
from urllib.parse import quote

from partywall.domains import FromDomain
from partywall.errors import ConfigurationError, TenantConflict
from partywall.scope import Scope, header, host

if TYPE_CHECKING:
    from partywall.jwt import FromJWT

__all__ = [
    "Chain",
    "FromDomain",
    "FromHeader",
    "FromJWT",
    "FromPath",
    "FromSubdomain",
    "Resolver",
    "Scope",
    "chain",
    "is_tenant_id",
]

Resolver = Callable[[Scope], str | Awaitable[str | None] | None]
"""See the module's docstring."""

NO_TENANTS = ("www", "api", "admin", "app")
"""Subdomains that are usually a product's own."""

_tenant_id = re.compile("[A-Za-z0-9][A-Za-z0-9._-]{0,127}")
_header_name = re.compile("[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # RFC 9110 section 5.6.2, token
_domain = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")


def is_tenant_id(text: str) -> bool:
    """Whether `text` can be a tenant's id: docs/contract.md section 4."""
    return _tenant_id.fullmatch(text) is not None


class FromHeader:
    """The tenant that a request header names.

    A client can send any header: only for apps behind a gateway that sets this one itself and drops
    what the client sent.

    Args:
        name: the header's, such as `X-Tenant-ID`.

    Raises:
        ConfigurationError: `name` can be no header's.
    """

    def __init__(self, name: str) -> None:
        if not _header_name.fullmatch(name):
            raise ConfigurationError(
                f"FromHeader: expected a header's name such as X-Tenant-ID; got {name!r}"
            )
        self._name = name.lower().encode()

    def __call__(self, scope: Scope) -> str | None:
        """The header's value.

        Raises:
            TenantConflict: it was sent twice with different values.
        """
        value = header(scope, self._name)
        return None if value is None else value.decode("latin-1")


class FromSubdomain:
    """The one label before a base domain: `acme` of `acme.example.com`, in lower case.

    The base domain itself and deeper names (`a.b.example.com`) name no tenant. Whoever sends a
    request chooses its `Host`, so this tells who is asked for, not who asks.

    Args:
        domains: the base domains; a port in one says nothing and is dropped.
        ignore: labels that are no tenants.
        header: where the host stands; another than `host` only behind a proxy that sets it.

    Raises:
        ConfigurationError: no base domain, or one that can be none.
    """

    def __init__(
        self, *domains: str, ignore: Iterable[str] = NO_TENANTS, header: str = "host"
    ) -> None:
        bases = [re.sub(r":[0-9]+\Z", "", domain).strip(".").lower() for domain in domains]
        for domain, base in zip(domains, bases, strict=True):
            if not _domain.fullmatch(base):
                raise ConfigurationError(
                    "FromSubdomain: expected a domain such as example.com, in its xn-- form if it"
                    f" has other letters than ASCII's; got {domain!r}"
                )
        if not bases:
            raise ConfigurationError("FromSubdomain: expected the domain that tenants are under")
        self._bases = frozenset(bases)
        self._ignored = frozenset(
            label.lower() for label in ([ignore] if isinstance(ignore, str) else ignore)
        )
        self._header = header.lower().encode()

    def __call__(self, scope: Scope) -> str | None:
        """The label.

        Raises:
            TenantConflict: two different hosts were sent.
        """
        name = host(scope, self._header)
        if name is None:
            return None
        label, _, base = name.partition(".")
        if base not in self._bases or label in self._ignored or name in self._bases:
            return None
        return label or None


class FromPath:
    """The tenant that the path's first segments name: `acme` of `/t/acme/orders`.

    A client can send any path: it tells who is asked for, not who asks.

    Args:
        prefix: the first segments, one of which is `{tenant}`.
        strip: whether the app sees the prefix as where it is mounted (`root_path`), so that its
            routes and the URLs it makes need not know of tenants.

    Attributes:
        strip: as given.

    Raises:
        ConfigurationError: `prefix` is not such a path.
    """

    def __init__(self, prefix: str = "/t/{tenant}", *, strip: bool = False) -> None:
        segments = prefix.rstrip("/").split("/")
        if segments[0] or "" in segments[1:] or segments.count("{tenant}") != 1:
            raise ConfigurationError(
                "FromPath: expected a path with one segment {tenant}, such as /t/{tenant};"
                f" got {prefix!r}"
            )
        self.strip = strip
        self._pattern = re.compile(
            "/".join("([^/]+)" if part == "{tenant}" else re.escape(part) for part in segments)
            + r"(?=/|\Z)"
        )

    def __call__(self, scope: Scope) -> str | None:
        """The segment, percent-decoded, as routers see it."""
        found = self._pattern.match(scope["path"], len(_mounted_at(scope)))
        return None if found is None else found[1]

    def stripped(self, scope: Scope, tenant: str) -> Scope:
        """A copy of the scope in which the app is mounted below the prefix.

        By the ASGI specification `path` keeps what the app is mounted at, and `root_path` says how
        much of it that is; Starlette, FastAPI, Django, Litestar and Quart route by the rest. The
        scope itself comes back when there is nothing to strip, or when `tenant`, which the whole
        chain settled on, was not named by the path.
        """
        mounted_at = _mounted_at(scope)
        found = self._pattern.match(scope["path"], len(mounted_at))
        if not self.strip or found is None or found[1] != tenant:
            return scope
        copy = {**scope, "root_path": scope["path"][: found.end()]}
        missing = scope.get("root_path", "").rstrip("/")
        if missing != mounted_at:
            # A root path that the server was told of but that is not in the path, as behind a proxy
            # that cuts it off (`FastAPI(root_path=…)`): put back, or nothing could be told from it.
            copy["root_path"] = missing + copy["root_path"]
            copy["path"] = missing + scope["path"]
            if scope.get("raw_path") is not None:
                copy["raw_path"] = quote(missing).encode() + scope["raw_path"]
        return copy


def _mounted_at(scope: Scope) -> str:
    """The part of `path` that is `root_path`; empty where `path` does not begin with it."""
    root: str = scope.get("root_path", "").rstrip("/")
    if root and (scope["path"] == root or scope["path"].startswith(root + "/")):
        return root
    return ""


class Chain:
    """Several resolvers, all of which are asked: they must not name two tenants.

    Attributes:
        resolvers: in the order in which they are asked.
    """

    __slots__ = ("resolvers",)

    def __init__(self, resolvers: Iterable[Resolver]) -> None:
        self.resolvers = tuple(resolvers)
        if not self.resolvers:
            raise ConfigurationError("expected at least one way to find the tenant; got none")
        for resolver in self.resolvers:
            if not callable(resolver):
                raise ConfigurationError(
                    "expected a resolver, such as FromHeader('X-Tenant-ID') or a function of the"
                    f" ASGI scope; got {resolver!r}"
                )

    def __call__(self, scope: Scope) -> str | Awaitable[str | None] | None:
        """The tenant that they name; an awaitable only when one of them needs to be awaited.

        Raises:
            TenantConflict: two of them name different tenants.
        """
        tenant = None
        for index, resolver in enumerate(self.resolvers):
            named = resolver(scope)
            if named is None:
                continue
            if not isinstance(named, str):
                return self._rest(scope, index, named, tenant)
            tenant = _agreed(tenant, named)
        return tenant

    async def _rest(
        self, scope: Scope, index: int, waiting: Awaitable[str | None], tenant: str | None
    ) -> str | None:
        tenant = _agreed(tenant, await awaited(self.resolvers[index], waiting))
        for further in range(index + 1, len(self.resolvers)):
            resolver = self.resolvers[further]
            named = resolver(scope)
            if named is not None and not isinstance(named, str):
                named = await awaited(resolver, named)
            tenant = _agreed(tenant, named)
        return tenant


def chain(resolvers: Iterable[Resolver]) -> Chain:
    """One resolver of several.

    Raises:
        ConfigurationError: there is none, or one is not callable.
    """
    return Chain(resolvers)


async def awaited(resolver: Resolver, waiting: Awaitable[str | None]) -> str | None:
    """The tenant that a resolver names which gave neither a str nor None.

    Raises:
        ConfigurationError: that is nothing to await, or it came to something else.
    """
    named: object = await waiting if inspect.isawaitable(waiting) else waiting
    if named is None or isinstance(named, str):
        return named
    raise ConfigurationError(
        f"the resolver {resolver!r} must give a tenant's id as a str, or None; it gave {named!r}"
    )


def _agreed(tenant: str | None, named: str | None) -> str | None:
    if tenant is None or named == tenant:
        return named
    if named is None:
        return tenant
    # Which two is not said: one may be another customer's.
    raise TenantConflict("the request names two different tenants")


def _without_pyjwt(*_args: object, **_options: object) -> NoReturn:
    raise ConfigurationError("FromJWT needs PyJWT: pip install 'partywall[jwt]'")


def __getattr__(name: str) -> object:
    """`FromJWT`, which is imported only when asked for: PyJWT is an extra."""
    if name != "FromJWT":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from partywall.jwt import FromJWT
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.partition(".")[0] not in ("jwt", "cryptography"):
            raise
        return _without_pyjwt
    return FromJWT
