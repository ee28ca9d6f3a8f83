"""What can go wrong with embedded servers.

    EmbeddedError
    ├── DataDirBusy    another process uses the data directory
    ├── NotInstalled   the wheels of the `embedded` extra are missing
    └── ServerFailed   a server did not start, or does not answer

The message of each is one sentence for the person at the terminal.
"""


class EmbeddedError(Exception):
    """An embedded server cannot be had."""


class DataDirBusy(EmbeddedError):
    """Another process uses the data directory."""


class NotInstalled(EmbeddedError):
    """The wheels that carry the servers are not installed."""


class ServerFailed(EmbeddedError):
    """A server did not start; the message names its log."""
