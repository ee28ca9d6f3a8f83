"""The tenant that a signed token names: JSON Web Tokens (RFC 7519), by RFC 8725's good practice.

The only module that needs PyJWT and cryptography: `pip install 'partywall[jwt]'`. PyJWT reads
tokens and checks signatures; the claims are checked by `Claims`, against a clock that can be given.
"""

import time
import warnings
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

import httpx
import msgspec
from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from jwt import InvalidKeyError, InvalidSignatureError, PyJWK, PyJWS, PyJWTError
from jwt.algorithms import HMACAlgorithm

from partywall.claims import Claims
from partywall.errors import ConfigurationError, InvalidCredentials, TenantConflict
from partywall.jwks import KeySet
from partywall.recent import Recent
from partywall.scope import Scope, header

REMEMBERED = 10_000
"""Verified tokens, so that a busy client's next request costs a look-up."""

LARGEST_REMEMBERED = 4096
"""Bytes of a token that is remembered; larger ones are verified each time."""

_SECRET = {
    "HS256": HMACAlgorithm.SHA256,
    "HS384": HMACAlgorithm.SHA384,
    "HS512": HMACAlgorithm.SHA512,
}
_RSA = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")
_CURVES = {"secp256r1": "ES256", "secp384r1": "ES384", "secp521r1": "ES512", "secp256k1": "ES256K"}
_PUBLISHED = ("RS256", "ES256", "EdDSA")
"""What is accepted from a key set unless told otherwise."""

_SHORTEST_SECRET = 32  # bytes, RFC 7518 section 3.2
_SHORTEST_RSA = 2048  # bits, RFC 7518 section 3.3


class _Key(NamedTuple):
    """A key and the algorithms that go with it; `kid` None matches every token."""

    kid: str | None
    algorithms: tuple[str, ...]
    material: Any  # what PyJWT takes: bytes of a secret, or one of cryptography's public keys


class _Verified(NamedTuple):
    tenant: str | None
    until: float


class _UnknownKey(InvalidCredentials):
    """No key at hand fits; a newer set might have one that does."""


class FromJWT:
    """The tenant that a claim of a verified token names.

    Reads `Authorization: Bearer …`; other schemes, and bearer tokens that are not of three parts
    (API keys, say), name no tenant here. A token that is presented must be valid, or the request is
    denied, whatever else names a tenant. A valid token without the claim names none.

    Args:
        key: a shared secret, or a public key or certificate in PEM.
        claim: where the tenant's id stands, a string or a whole number: a claim's name
            (`tenant_id`, `https://example.com/tenant`), a dotted path (`app_metadata.tenant_id`,
            when no claim has that very name), or the path as a sequence.
        jwks_url: where the issuer publishes its keys (RFC 7517), in place of `key`.
        algorithms: what is accepted. Left out: HS256 for a secret, RS256 for an RSA key, the one
            that goes with any other key; RS256, ES256 and EdDSA for `jwks_url`.
        issuer: what `iss` must be, or several of which it must be one.
        audience: what `aud` must hold, or several of which it must hold one. Left out, a token that
            is meant for an audience is refused, as RFC 7519 section 4.1.3 has it.
        header: which request header holds the token.
        cookie: the cookie that holds it, in place of a header.
        leeway: seconds by which clocks may differ.
        require_expiry: whether a token must have `exp`.
        transport: in place of httpx's own, for `jwks_url`.
        clock: seconds since the epoch.
        timer: seconds that never go back, for the age of keys.

    Raises:
        ConfigurationError: for arguments that cannot be, or that would let forged tokens through.
    """

    def __init__(
        self,
        key: str | bytes | None = None,
        claim: str | Sequence[str] = "tenant_id",
        *,
        jwks_url: str | None = None,
        algorithms: Sequence[str] | None = None,
        issuer: str | Iterable[str] | None = None,
        audience: str | Iterable[str] | None = None,
        header: str = "authorization",
        cookie: str | None = None,
        leeway: float = 0.0,
        require_expiry: bool = True,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._verified: Recent[bytes, _Verified] = Recent(REMEMBERED)
        self._published: KeySet[_Key] | None = None
        self._keys: tuple[_Key, ...] = ()
        if key is not None and jwks_url is None:
            own = _static_key(key)
            self._keys = (own,)
            possible, usual = own.algorithms, own.algorithms[:1]
        elif jwks_url is not None and key is None:
            self._published = KeySet(
                jwks_url,
                _published_keys,
                on_change=self._verified.clear,
                transport=transport,
                timer=timer,
            )
            possible, usual = (*_RSA, *_CURVES.values(), "EdDSA"), _PUBLISHED
        else:
            raise ConfigurationError("FromJWT: expected either key= or jwks_url=")
        self._algorithms = _pinned(algorithms, possible, usual)
        self._jws = _signatures(self._algorithms)
        self._claims = Claims(
            claim,
            issuer=issuer,
            audience=audience,
            leeway=leeway,
            require_expiry=require_expiry,
        )
        self._header = header.lower().encode()
        self._cookie = None if cookie is None else cookie.encode()
        self._clock = clock

    def __call__(self, scope: Scope) -> str | Awaitable[str | None] | None:
        """The tenant's id; an awaitable only when keys must be fetched.

        Raises:
            InvalidCredentials: the token is not valid.
            KeysUnavailable: (when awaited) there are no keys to check it with.
        """
        token = self._presented(scope)
        if token is None:
            return None
        published = self._published
        if published is not None and not published.ready():
            self._header_of(token)  # what cannot be valid is no reason to ask for keys
            return self._with_news(token, published)
        known = self._verified.get(token)
        if known is not None and self._clock() < known.until:
            return known.tenant
        if published is None:
            return self._verify(token, self._keys)
        try:
            return self._verify(token, published.keys)
        except _UnknownKey:
            if not published.may_learn():
                raise
            return self._with_news(token, published)

    async def _with_news(self, token: bytes, published: KeySet[_Key]) -> str | None:
        await published.refresh()
        return self._verify(token, published.keys)

    def _presented(self, scope: Scope) -> bytes | None:
        """The token, if there is what may be one."""
        if self._cookie is not None:
            token = _cookie(scope, self._cookie)
        else:
            try:
                token = header(scope, self._header)
            except TenantConflict as exc:
                raise InvalidCredentials("two different ones were sent") from exc
            if token is not None and token[:7].lower() == b"bearer ":
                token = token[7:].strip(b" \t")
            elif self._header == b"authorization":
                return None
        return token if token is not None and token.count(b".") == 2 else None

    def _header_of(self, token: bytes) -> dict[str, Any]:
        try:
            found = self._jws.get_unverified_header(token)
        except (PyJWTError, RecursionError) as exc:
            raise InvalidCredentials("it is malformed") from exc
        algorithm = found.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise InvalidCredentials("its algorithm is not accepted")
        return found

    def _verify(self, token: bytes, keys: Sequence[_Key]) -> str | None:
        head = self._header_of(token)
        claims = self._signed(token, head["alg"], head.get("kid"), keys)
        until = self._claims.good_until(claims, self._clock())
        tenant = self._claims.tenant(claims)
        if len(token) <= LARGEST_REMEMBERED:
            self._verified.put(token, _Verified(tenant, until))
        return tenant

    def _signed(
        self, token: bytes, algorithm: str, kid: str | None, keys: Sequence[_Key]
    ) -> dict[str, Any]:
        """The claims, once one of the keys has been found to have signed them."""
        for key in keys:
            if algorithm not in key.algorithms or (kid is not None and key.kid not in (None, kid)):
                continue
            try:
                payload = self._jws.decode(token, key.material, algorithms=[algorithm])
                return msgspec.json.decode(payload, type=dict[str, Any])
            except InvalidSignatureError:
                continue
            except (PyJWTError, msgspec.MsgspecError, ValueError, RecursionError) as exc:
                raise InvalidCredentials("it is malformed") from exc
        raise _UnknownKey("it was not signed by a known key")


class _Secret(HMACAlgorithm):
    """HMAC that leaves the secret's length be: it was spoken of when the secret was given."""

    def check_key_length(self, key: bytes) -> str | None:
        return None


def _signatures(algorithms: Iterable[str]) -> PyJWS:
    """What checks signatures of these algorithms and knows no others, `none` in particular."""
    names = list(algorithms)
    jws = PyJWS(algorithms=names)
    for name in _SECRET.keys() & names:
        jws.unregister_algorithm(name)
        jws.register_algorithm(name, _Secret(_SECRET[name]))
    return jws


def _pinned(
    wanted: Sequence[str] | None, possible: Sequence[str], usual: Sequence[str]
) -> frozenset[str]:
    if wanted is None:
        return frozenset(usual)
    names = frozenset([wanted] if isinstance(wanted, str) else wanted)
    if any(name.lower() == "none" for name in names):
        raise ConfigurationError("FromJWT: the algorithm none would accept forged tokens")
    if not names or not names <= set(possible):
        # HMAC beside a public key would take that key, which anybody has, as its secret.
        raise ConfigurationError(
            f"FromJWT: expected algorithms that go with the key, of {', '.join(possible)};"
            f" got {', '.join(sorted(names)) or 'none at all'}"
        )
    return names


def _static_key(key: str | bytes) -> _Key:
    data = key.encode() if isinstance(key, str) else key
    if not data.strip():
        # As from an unset variable. PyJWT refuses it too, but not in every release.
        raise ConfigurationError("FromJWT: expected a secret, or a public key in PEM; got nothing")
    if b"-----BEGIN" in data:
        return _public_key(data)
    try:
        secret = HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(data)
    except InvalidKeyError as exc:
        raise ConfigurationError(
            f"FromJWT: expected a secret, or a public key in PEM: {exc}"
        ) from exc
    if len(secret) < _SHORTEST_SECRET:
        warnings.warn(
            f"FromJWT: a secret of {len(secret)} bytes can be guessed, and tokens forged by it; use"
            f" at least {_SHORTEST_SECRET} random ones (RFC 7518 section 3.2)",
            stacklevel=3,
        )
    return _Key(None, tuple(_SECRET), secret)


def _public_key(pem: bytes) -> _Key:
    if b"PRIVATE KEY" in pem:
        raise ConfigurationError(
            "FromJWT: expected the public key, which is all that checking tokens needs; got a"
            " private one, which should stay with the issuer"
        )
    try:
        material: object
        if b"BEGIN CERTIFICATE" in pem:
            material = x509.load_pem_x509_certificate(pem).public_key()
        else:
            material = load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm) as exc:
        raise ConfigurationError(f"FromJWT: the PEM key cannot be read: {exc}") from exc
    algorithms = _algorithms_of(material)
    if not algorithms:
        raise ConfigurationError(
            f"FromJWT: expected an RSA key of at least {_SHORTEST_RSA} bits, a key on the curves"
            f" P-256, P-384, P-521 or secp256k1, or an Ed25519 or Ed448 key; got {material!r}"
        )
    return _Key(None, algorithms, material)


def _algorithms_of(material: object) -> tuple[str, ...]:
    """What a public key can check, the usual one first; nothing for one that is too weak."""
    match material:
        case rsa.RSAPublicKey():
            return _RSA if material.key_size >= _SHORTEST_RSA else ()
        case ec.EllipticCurvePublicKey():
            name = _CURVES.get(material.curve.name)
            return () if name is None else (name,)
        case ed25519.Ed25519PublicKey() | ed448.Ed448PublicKey():
            return ("EdDSA",)
    return ()


def _published_keys(documents: Sequence[dict[str, Any]]) -> tuple[_Key, ...]:
    """The keys of a set that can check signatures; symmetric and private ones never count."""
    keys = []
    for document in documents:
        try:
            jwk = PyJWK(document)
        except (PyJWTError, UnsupportedAlgorithm, KeyError, TypeError, ValueError):
            continue  # malformed, or of a kind not known here: the set's other keys still serve
        algorithms = _algorithms_of(jwk.key)
        if document.get("alg") is not None:
            algorithms = tuple(name for name in algorithms if name == document["alg"])
        kid = document.get("kid")
        if algorithms and document.get("use", "sig") == "sig" and isinstance(kid, str | None):
            keys.append(_Key(kid, algorithms, jwk.key))
    return tuple(keys)


def _cookie(scope: Scope, name: bytes) -> bytes | None:
    """A cookie's value (RFC 6265 section 5.4); HTTP/2 may spread cookies over several headers."""
    values = set()
    for key, value in scope["headers"]:
        if key == b"cookie":
            for pair in value.split(b";"):
                found, _, text = pair.partition(b"=")
                if found.strip() == name:
                    values.add(text.strip().strip(b'"'))
    if len(values) > 1:
        raise InvalidCredentials("two different ones were sent")
    return values.pop() if values else None
