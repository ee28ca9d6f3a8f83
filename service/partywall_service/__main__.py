"""`partywall`, and `python -m partywall_service`."""

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich", "fastapi", "pydantic_settings", "sqlalchemy", "structlog", "limits")
"""Of the `service` extra: a host app's plain `pip install partywall` has the command, not these."""


def main() -> None:
    """The command line."""
    if any(find_spec(name) is None for name in _NEEDED):
        sys.exit("the partywall command needs its service extra: install partywall[service]")
    try:
        from partywall_service.cli import app

        app(prog_name="partywall")
    except KeyboardInterrupt:  # before, or after, the command itself could answer it
        sys.exit(130)


if __name__ == "__main__":
    main()
