"""Whether a signed token's claims are good now, and which tenant they name (RFC 7519 section 4)."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from partywall.errors import ConfigurationError, InvalidCredentials

_MOST = 2**53
"""No instant is as far away as this; a larger number would not survive becoming a float."""


class Claims:
    """What is asked of the claims of every token.

    Args:
        tenant: where the tenant's id stands; see `FromJWT`.
        issuer: what `iss` must be, or several of which it must be one.
        audience: what `aud` must hold, or several of which it must hold one.
        leeway: seconds by which clocks may differ.
        require_expiry: whether there must be an `exp`.

    Raises:
        ConfigurationError: for arguments that cannot be.
    """

    def __init__(
        self,
        tenant: str | Sequence[str],
        *,
        issuer: str | Iterable[str] | None,
        audience: str | Iterable[str] | None,
        leeway: float,
        require_expiry: bool,
    ) -> None:
        if not 0 <= leeway < math.inf:
            raise ConfigurationError(f"FromJWT: expected leeway in seconds from 0; got {leeway!r}")
        self._paths = _paths(tenant)
        self._issuers = _accepted("issuer", issuer)
        self._audiences = _accepted("audience", audience)
        self._leeway = leeway
        self._require_expiry = require_expiry

    def good_until(self, claims: Mapping[str, Any], now: float) -> float:
        """Until when they are good, in seconds since the epoch; infinity without an expiry.

        Raises:
            InvalidCredentials: they are not good now.
        """
        expires = _instant(claims, "exp")
        if expires is None and self._require_expiry:
            raise InvalidCredentials("it has no expiry")
        until = math.inf if expires is None else expires + self._leeway
        if now >= until:
            raise InvalidCredentials("it has expired")
        for name in ("nbf", "iat"):
            begins = _instant(claims, name)
            if begins is not None and begins > now + self._leeway:
                raise InvalidCredentials("it is not valid yet")
        if self._issuers and not _holds(self._issuers, claims.get("iss")):
            raise InvalidCredentials("it is of another issuer")
        audience = claims.get("aud")
        listed = audience if isinstance(audience, list) else [audience]
        if (audience or self._audiences) and not any(
            _holds(self._audiences, one) for one in listed
        ):
            raise InvalidCredentials("it is meant for another audience")
        return until

    def tenant(self, claims: Mapping[str, Any]) -> str | None:
        """The tenant's id that they name, or None."""
        for path in self._paths:
            value: object = claims
            for step in path:
                value = value.get(step) if isinstance(value, Mapping) else None
            if isinstance(value, int) and not isinstance(value, bool):
                return str(value)
            if isinstance(value, str) and value:
                return value
        return None


def _paths(claim: str | Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The ways to the claim, in the order in which they are tried."""
    paths = [(claim,), tuple(claim.split("."))] if isinstance(claim, str) else [tuple(claim)]
    if not paths[0] or not all(isinstance(step, str) and step for step in paths[0]):
        raise ConfigurationError(f"FromJWT: expected claim to name a claim; got {claim!r}")
    return tuple(dict.fromkeys(paths))


def _accepted(name: str, values: str | Iterable[str] | None) -> frozenset[str]:
    if values is None:
        return frozenset()
    accepted = frozenset([values] if isinstance(values, str) else values)
    if not accepted:
        raise ConfigurationError(f"FromJWT: expected {name} to name at least one; got none")
    return accepted


def _holds(accepted: frozenset[str], value: object) -> bool:
    return isinstance(value, str) and value in accepted


def _instant(claims: Mapping[str, Any], name: str) -> float | None:
    value = claims.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > _MOST:
        raise InvalidCredentials(f"its {name} is no instant")
    return value
