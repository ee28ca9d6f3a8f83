"""Tiers with quotas, for tests of the client with a fake sidecar."""

from typing import Any

TIERS: Any = {
    "free": {
        "quotas": {
            "users": 5,
            "storage": "1 KiB",
            "api-keys": 2,
            "ttl": 1,
            "emails": {"limit": 10, "per": "month"},
        }
    },
    "pro": {"extends": "free", "quotas": {"users": 50, "storage": "unlimited"}},
}
