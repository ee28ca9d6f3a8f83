"""Settings: environment variables first, command-line flags win (docs/contract.md section 2)."""

from base64 import b64decode
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

MAX_KEEP = 10 * 365 * 86_400
"""Seconds: longer than anybody keeps a job."""

MAX_KEEP_DAYS = 36_500

LEAST_SECRET, MOST_SECRET = 16, 64
"""Bytes of the secret of webhooks; Standard Webhooks asks for 24 at least of who makes one."""

_SECRET = (
    f"expected base64 of {LEAST_SECRET} to {MOST_SECRET} random bytes, with whsec_ before it or "
    "not, for example by openssl rand -base64 32"
)


def _listed(given: object) -> object:
    """A text with commas as the list it stands for; anything else as it is."""
    if isinstance(given, str):
        return tuple(one.strip() for one in given.split(",") if one.strip())
    return given


class Settings(BaseSettings):
    """What a sidecar is told from outside; every name is an environment variable's suffix.

    Attributes:
        config: the policy file.
        redis_url: the shared store; None starts the embedded Valkey.
        database_url: PostgreSQL; None starts the embedded one.
        admin_token: a token with every scope; None keeps one in `<data_dir>/admin-token`.
        data_dir: where embedded servers and the admin token live.
        host: the address to listen on, or `unix:` and the path of a socket.
        port: the port to listen on; of no use with a socket.
        redis_timeout_ms: the deadline of every call to the shared store, in milliseconds.
        key_prefix: what every Redis key of this installation starts with.
        jobs_redis_url: where jobs are queued, a single server or Sentinel's; None is `redis_url`.
        jobs_keep: seconds that finished jobs are kept.
        tenant_cache_size: tenants a process remembers, registered or not.
        metering: whether decisions are counted for usage.
        usage_keep_minutes: days that usage by the minute is kept.
        usage_keep_hours: days that usage by the hour is kept.
        usage_keep_days: days that usage by the day is kept.
        webhook_urls: where notices go, separated by commas.
        webhook_secret: what they are signed with.
        log_requests: whether requests are logged that change nothing; checks are never.
    """

    model_config = SettingsConfigDict(env_prefix="PARTYWALL_")

    config: Path = Path("quotas.toml")
    redis_url: str | None = None
    database_url: str | None = None
    admin_token: str | None = Field(default=None, min_length=1, repr=False)
    data_dir: Path = Path(".partywall")
    host: str = "127.0.0.1"
    port: int = Field(default=8080, ge=0, le=65535)
    redis_timeout_ms: int = Field(default=50, ge=1)
    key_prefix: str = Field(default="pw", pattern=r"^[A-Za-z0-9_.-]{1,32}$")
    jobs_redis_url: str | None = None
    jobs_keep: float = Field(default=86_400, gt=0, le=MAX_KEEP)
    tenant_cache_size: int = Field(default=200_000, ge=1)
    metering: bool = True
    usage_keep_minutes: int = Field(default=7, ge=1, le=MAX_KEEP_DAYS)
    usage_keep_hours: int = Field(default=90, ge=1, le=MAX_KEEP_DAYS)
    usage_keep_days: int = Field(default=800, ge=1, le=MAX_KEEP_DAYS)
    webhook_urls: Annotated[tuple[str, ...], NoDecode, BeforeValidator(_listed)] = Field(
        default=(), repr=False
    )
    webhook_secret: str | None = Field(default=None, repr=False, validate_default=True)
    log_requests: bool = False

    @field_validator("webhook_urls")
    @classmethod
    def _are_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            try:
                parts = urlsplit(url)
                fits = parts.scheme in ("http", "https") and bool(parts.hostname)
                _ = parts.port  # raises where it is none
            except ValueError:
                fits = False
            if not fits:
                raise ValueError("expected URLs such as https://ops.example/hook, with commas")
        return urls

    @field_validator("webhook_secret")
    @classmethod
    def _signs(cls, secret: str | None, info: ValidationInfo) -> str | None:
        if not secret:  # compose files pass on what is not set as empty
            if info.data.get("webhook_urls"):
                raise ValueError(f"webhooks are signed, and there is no secret: {_SECRET}")
            return None
        try:
            key = b64decode(secret.removeprefix("whsec_"), validate=True)
        except ValueError:
            key = b""
        if not LEAST_SECRET <= len(key) <= MOST_SECRET:
            raise ValueError(_SECRET)
        return secret
