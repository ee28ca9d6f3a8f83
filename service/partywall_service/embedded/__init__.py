"""The servers a sidecar brings along: Valkey and PostgreSQL, from wheels, in the data directory."""

from partywall_service.embedded.errors import (
    DataDirBusy,
    EmbeddedError,
    NotInstalled,
    ServerFailed,
)
from partywall_service.embedded.postgres import PostgresServer
from partywall_service.embedded.supervisor import EmbeddedServers
from partywall_service.embedded.valkey import ValkeyServer

__all__ = [
    "DataDirBusy",
    "EmbeddedError",
    "EmbeddedServers",
    "NotInstalled",
    "PostgresServer",
    "ServerFailed",
    "ValkeyServer",
]
