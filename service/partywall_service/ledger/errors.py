"""What can go wrong in the ledger.

    LedgerError
    ├── LedgerUnavailable   PostgreSQL did not answer, or not in time, or is not migrated
    ├── TenantMissing       the change needs a tenant that is not registered
    ├── DomainTaken         another tenant has that domain
    └── DomainsTaken        other tenants have some of several domains

A value that cannot be stored at all (a NUL byte, half a surrogate pair) is a `ValueError`, as for
any Python function given one.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from sqlalchemy import exc

_NOT_READY = {
    "42P01": "its tables are missing; run `partywall db upgrade`",
    "42703": "its tables are those of an older version; run `partywall db upgrade`",
    "25006": "it is read only, so perhaps a standby",
}
"""SQLSTATEs (undefined table, undefined column, read-only transaction) that are the installation's
fault, not the statement's: an outage, with what to do about it."""
_NOT_ALLOWED = "42501"


class LedgerError(Exception):
    """The base of everything the ledger raises."""


class LedgerUnavailable(LedgerError):
    """PostgreSQL cannot answer now; the same call may succeed later.

    A change that raises this has not happened, unless the connection broke while it was being
    committed: then only asking again tells.
    """


class TenantMissing(LedgerError):
    """The tenant is not registered."""

    def __init__(self, tenant: str) -> None:
        super().__init__(f"tenant {tenant!r} is not registered")
        self.tenant = tenant


class DomainTaken(LedgerError):
    """A domain belongs to one tenant at most."""

    def __init__(self, domain: str, tenant: str) -> None:
        super().__init__(f"domain {domain!r} belongs to tenant {tenant!r}")
        self.domain = domain
        self.tenant = tenant


class DomainsTaken(LedgerError):
    """As `DomainTaken`, for all the domains of a call: `holders` says who has which."""

    def __init__(self, holders: Mapping[str, str]) -> None:
        self.holders = holders
        super().__init__("; ".join(str(DomainTaken(*one)) for one in sorted(holders.items())[:3]))


@contextmanager
def translated() -> Iterator[None]:
    """The one place where the driver's errors become the ledger's, each `from` its cause."""
    try:
        yield
    except exc.DataError as error:
        raise ValueError(f"expected values PostgreSQL can store: {_said(error)}") from error
    except UnicodeError as error:
        raise ValueError(f"expected text PostgreSQL can store: {error}") from error
    except (exc.OperationalError, exc.InterfaceError) as error:
        raise LedgerUnavailable(f"PostgreSQL does not answer: {_said(error)}") from error
    except (exc.TimeoutError, exc.PendingRollbackError, OSError) as error:
        raise LedgerUnavailable(f"PostgreSQL does not answer: {error}") from error
    except exc.DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None)
        if state not in _NOT_READY and state != _NOT_ALLOWED and not error.connection_invalidated:
            raise
        reason = _NOT_READY.get(state or "", _said(error))
        raise LedgerUnavailable(f"PostgreSQL cannot be used: {reason}") from error


def _said(error: exc.DBAPIError) -> str:
    """The server's own sentence, without the statement, or a detail that may quote a row."""
    diagnosis = getattr(error.orig, "diag", None)
    sentence = getattr(diagnosis, "message_primary", None) or str(error.orig)
    return " ".join(sentence.split())
