"""Keys, and tokens signed with them, well or badly."""

import base64
import hashlib
import hmac
import json
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

SECRET = "a secret long enough for HS512, which asks for sixty-four bytes at least"
NOW = 1_800_000_000
PrivateKey = rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey


class Clock:
    """Seconds that pass when told to."""

    def __init__(self, now: float = NOW) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@cache
def rsa_key(name: str = "one", bits: int = 2048) -> rsa.RSAPrivateKey:
    """One and the same for one name: making it is slow."""
    return rsa.generate_private_key(public_exponent=65537, key_size=bits)


@cache
def key_of(algorithm: str) -> PrivateKey:
    """A private key that goes with the algorithm."""
    if algorithm == "EdDSA":
        return ed25519.Ed25519PrivateKey.generate()
    curves: dict[str, type[ec.EllipticCurve]] = {
        "ES256": ec.SECP256R1,
        "ES384": ec.SECP384R1,
        "ES512": ec.SECP521R1,
    }
    if algorithm in curves:
        return ec.generate_private_key(curves[algorithm]())
    return rsa_key()


def pem(key: PrivateKey) -> str:
    """Its public half."""
    return (
        key.public_key()
        .public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        .decode("ascii")
    )


def token(
    key: PrivateKey | str = SECRET, algorithm: str = "HS256", kid: str | None = None, **claims: Any
) -> str:
    """A token of acme's that is good for a minute, unless the claims say otherwise."""
    payload = {"tenant_id": "acme", "exp": NOW + 60, **claims}
    payload = {name: value for name, value in payload.items() if value is not ...}
    return jwt.encode(
        payload, key, algorithm=algorithm, headers=None if kid is None else {"kid": kid}
    )


def base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def handmade(head: Any, payload: Any, secret: bytes | None = None) -> str:
    """A token that no library would make; unsigned, or signed by HMAC with any bytes at all."""
    signed = f"{base64url(json.dumps(head).encode())}.{base64url(json.dumps(payload).encode())}"
    signature = b""
    if secret is not None:
        signature = hmac.new(secret, signed.encode(), hashlib.sha256).digest()
    return f"{signed}.{base64url(signature)}"
