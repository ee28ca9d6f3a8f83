"""Which tenant's request a line of the log is about, for the logging of a host app."""

import logging
import re

from partywall.context import current_headers, current_tenant

_is_sane = re.compile(rb"[!#-&(-~]{1,128}").fullmatch
"""Visible ASCII without quotes: a client chose it, and no reader of logs may trip over it."""


class TenantFilter(logging.Filter):
    """Gives every record `tenant` and `request_id`: those of the request in which it was logged.

    `tenant` is also the running job's, or that of `running_as`. `request_id` is what the request's
    `X-Request-ID` said. Either is None where there is none, so that any format may name both.

    For handlers, whose filters see the records of all loggers:

        handler.addFilter(TenantFilter())
        handler.setFormatter(
            logging.Formatter("%(levelname)s %(tenant)s %(request_id)s %(message)s")
        )

    What a record has already stays: it may come through a queue, in whose thread no request runs.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets the record pass."""
        if not hasattr(record, "tenant"):
            tenant = current_tenant(default=None)
            record.tenant = None if tenant is None else tenant.id
        if not hasattr(record, "request_id"):
            record.request_id = _request_id()
        return True


def _request_id() -> str | None:
    """The first that could be one: of several nobody knows which of them a gateway set."""
    for name, value in current_headers():
        if name == b"x-request-id" and _is_sane(value):
            return value.decode()
    return None
