"""The command line, `partywall` (CONTRACT section 2)."""

from partywall_service.cli.root import app

__all__ = ["app"]
