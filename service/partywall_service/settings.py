"""Settings: environment variables first, command-line flags win (docs/contract.md section 2)."""

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

MAX_KEEP = 10 * 365 * 86_400
"""Seconds: longer than anybody keeps a job."""


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
