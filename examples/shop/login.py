"""Prints a merchant's token, as the shop's login would give it: python login.py acme."""

import os
import sys
import time

import jwt

HOUR = 3600


def token_of(merchant: str) -> str:
    """A token for an hour, signed with the secret in SHOP_JWT_SECRET."""
    claims = {"merchant": merchant, "exp": int(time.time()) + HOUR}
    return jwt.encode(claims, os.environ["SHOP_JWT_SECRET"], "HS256")


if __name__ == "__main__":
    print(token_of(sys.argv[1]))
