"""The REST API, docs/contract.md section 4."""

from partywall_service.api.factory import create_api

__all__ = ["create_api"]
