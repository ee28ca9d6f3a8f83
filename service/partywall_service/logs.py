"""What a sidecar says about itself: JSON lines to stderr, or colours on a terminal."""

import json
import logging
import re
import sys
from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

import structlog

_QUIET = {
    # Names what starts and ends; the banner and our own lines say it better.
    "uvicorn": logging.WARNING,
    "alembic": logging.WARNING,
    # Say what they notice and send; whoever uses them says what it means.
    "watchfiles": logging.WARNING,
    "httpx": logging.WARNING,
}


_OF_A_JOB = ("tenant", "job_id")
"""What a filter may have put into records; see `partywall_workers.logs`."""

_SECRET = re.compile(r"(pw_[0-9a-f]{12}_)[A-Za-z0-9_-]{43}")
"""A token, as `ledger.token_text` makes them; its id may be told."""

_LEAST_HIDDEN = 8
"""Characters: a shorter secret is a part of words, and guessed anyhow."""

_hidden: set[str] = set()

told_by: ContextVar[Callable[[], Mapping[str, object]]] = ContextVar("partywall.told_by")
"""Gives what every line logged in this context tells besides: which request it is about.

Asked at each line and not bound beforehand, as `structlog.contextvars` does: tasks that a request
starts for everybody copy its context, and outlive it.
"""


def configure_logging(*filters: logging.Filter) -> None:
    """Send everything, the libraries' own lines too, through one renderer to stderr.

    Args:
        filters: every record goes through them.
    """
    shared: list[structlog.types.Processor] = [
        structlog.stdlib.add_log_level,
        structlog.stdlib.ExtraAdder(),
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            structlog.stdlib.add_logger_name,
            structlog.stdlib.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    render: list[structlog.types.Processor] = (
        [structlog.dev.ConsoleRenderer()]
        if sys.stderr.isatty()
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    for one in filters:
        handler.addFilter(one)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                _add_job,
                _add_request,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *render,
                _without_secrets,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    for name, level in _QUIET.items():
        logging.getLogger(name).setLevel(level)


def hide(secret: str) -> None:
    """Keeps a secret out of every line from now on, whoever puts it there.

    Args:
        secret: one that does not look as our tokens do, which are hidden anyhow.
    """
    if len(secret) >= _LEAST_HIDDEN:
        _hidden.update((secret, json.dumps(secret)[1:-1]))


def _add_job(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Tell whose job a line of structlog's is of; it has only what was said of other lines."""
    record = event["_record"]
    for name in _OF_A_JOB:
        if (value := getattr(record, name, None)) is not None:
            event.setdefault(name, value)
    return event


def _add_request(
    _logger: object, _method: str, event: structlog.types.EventDict
) -> structlog.types.EventDict:
    """Tell during which request a line was logged, the libraries' lines too."""
    tell = told_by.get(None)
    if tell is not None:
        for name, value in tell().items():
            event.setdefault(name, value)
    return event


def _without_secrets(_logger: object, _method: str, line: Any) -> str:  # noqa: ANN401 - rendered
    """The line without tokens, which callers put where nobody expects them: in a path, say."""
    for secret in _hidden:
        line = line.replace(secret, "...")
    return _SECRET.sub(r"\1...", line)
