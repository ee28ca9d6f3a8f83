"""The command line, `partywall` (docs/contract.md section 2)."""

from partywall_service.cli.root import app

__all__ = ["app"]
