"""The tables as SQLAlchemy sees them; a test holds them equal to what the migrations build.

Ids are text under collation "C": they are ASCII, pages follow the same order on every machine,
and an operating system's new locale data cannot corrupt their indexes. The tenant comes first in
every key, so one tenant's rows lie together.
"""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    Column,
    DateTime,
    Double,
    ForeignKey,
    Identity,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

metadata = MetaData(
    naming_convention={
        "pk": "%(table_name)s_pkey",
        "fk": "%(table_name)s_%(column_0_name)s_fkey",
        "ck": "%(table_name)s_%(constraint_name)s_check",
        "ix": "%(table_name)s_%(column_0_N_name)s_idx",
    }
)

_ID = Text(collation="C")
_INSTANT = DateTime(timezone=True)


def _owner() -> ForeignKey:
    """A row that lives and dies with its tenant."""
    return ForeignKey("tenants.tenant", ondelete="CASCADE")


tenants = Table(
    "tenants",
    metadata,
    Column("tenant", _ID, primary_key=True),
    Column("name", Text, nullable=False),
    Column("tier", _ID, nullable=False),
    Column("status", Text, nullable=False),
    Column("created_at", _INSTANT, nullable=False, server_default=func.now()),
    Column("updated_at", _INSTANT, nullable=False, server_default=func.now()),
    CheckConstraint("status IN ('provisioning', 'active', 'suspended')", name="status"),
    # So a page of one tier, or of the few suspended, costs a page, whatever the number of tenants.
    Index(None, "tier", "tenant"),
    Index(None, "status", "tenant"),
)

tenant_domains = Table(
    "tenant_domains",
    metadata,
    Column("domain", _ID, primary_key=True),
    Column("tenant", _ID, _owner(), nullable=False),
    CheckConstraint("domain = lower(domain)", name="lower_case"),
    Index(None, "tenant", "domain"),
)

overrides = Table(
    "overrides",
    metadata,
    Column("tenant", _ID, _owner(), primary_key=True),
    Column("kind", _ID, primary_key=True),
    Column("name", _ID, primary_key=True),
    Column("value", JSONB, nullable=False),
    Column("expires_at", _INSTANT),
    Column("reason", Text, nullable=False),
    Column("author", Text, nullable=False),
    Column("created_at", _INSTANT, nullable=False, server_default=func.now()),
    CheckConstraint("kind IN ('limits', 'quotas', 'jobs')", name="kind"),
)

tokens = Table(
    "tokens",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("scope", Text, nullable=False),
    # No foreign key: a token may name a tenant that nobody registered and `default_tier` serves.
    Column("tenant", _ID),
    Column("name", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("created_at", _INSTANT, nullable=False, server_default=func.now()),
    CheckConstraint("scope IN ('admin', 'host', 'tenant')", name="scope"),
    CheckConstraint("(scope = 'tenant') = (tenant IS NOT NULL)", name="tenant_scope"),
    Index(None, "tenant"),
)

audit = Table(
    "audit",
    metadata,
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    # The wall clock, not the transaction's start: the lines of one tenant are written under its
    # row's lock, so they read in the order in which things happened.
    Column("at", _INSTANT, nullable=False, server_default=func.clock_timestamp()),
    Column("actor", Text, nullable=False),
    Column("action", Text, nullable=False),
    # No foreign key: the line that says a tenant was deleted outlives it.
    Column("tenant", _ID),
    Column("detail", JSONB, nullable=False),
    Index(None, "tenant", "id"),
)

# The tenants of quotas need not be registered: `default_tier` serves them as well.

quota_levels = Table(
    "quota_levels",
    metadata,
    Column("tenant", _ID, primary_key=True),
    Column("resource", _ID, primary_key=True),
    Column("used", BigInteger, nullable=False),
    Column("reserved", BigInteger, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("per", Text),
    Column("period_start", _INSTANT),
    Column("crossed", Integer, nullable=False),
    Column("crossed_at", _INSTANT),
    Column("refills", BigInteger, nullable=False),
    CheckConstraint("used >= 0 AND reserved >= 0", name="amounts"),
)

quota_reservations = Table(
    "quota_reservations",
    metadata,
    Column("tenant", _ID, primary_key=True),
    Column("id", _ID, primary_key=True),
    Column("items", JSONB, nullable=False),
    Column("expires_at", _INSTANT, nullable=False),
    Column("status", Text, nullable=False),
    Column("taken", JSONB(none_as_null=True)),
    Column("answer", Text),
    Column("settled_at", _INSTANT),
    CheckConstraint("status IN ('held', 'committed', 'cancelled', 'expired')", name="status"),
    Index(None, "expires_at", "tenant", postgresql_where=text("status = 'held'")),
    Index(None, "settled_at", postgresql_where=text("settled_at IS NOT NULL")),
)

quota_operations = Table(
    "quota_operations",
    metadata,
    Column("tenant", _ID, primary_key=True),
    Column("id", _ID, primary_key=True),
    Column("fingerprint", LargeBinary, nullable=False),
    Column("answer", Text, nullable=False),
    Column("kept_until", _INSTANT, nullable=False),
    Index(None, "kept_until"),
)

quota_ledger = Table(
    "quota_ledger",
    metadata,
    Column("tenant", _ID, primary_key=True),
    Column("id", BigInteger, Identity(always=True), primary_key=True),
    Column("at", _INSTANT, nullable=False),
    Column("resource", _ID, nullable=False),
    Column("operation", Text, nullable=False),
    Column("delta", BigInteger, nullable=False),
    Column("used", BigInteger, nullable=False),
    Column("actor", Text, nullable=False),
    Column("idempotency_key", Text),
    Column("reason", Text),
    Index(None, "tenant", "resource", "id"),
    # So that the roll-up finds what changed lately.
    Index(None, "at"),
)


def _usage(name: str) -> Table:
    """What meters came to in each step; the steps' partitions are made as time goes on."""
    return Table(
        name,
        metadata,
        Column("tenant", _ID, primary_key=True),
        Column("meter", _ID, primary_key=True),
        Column("start", _INSTANT, primary_key=True),
        Column("value", BigInteger, nullable=False),
        postgresql_partition_by="RANGE (start)",
    )


# By the hour, the month and the year: what is kept no longer goes a whole partition at a time.
usage_minutes = _usage("usage_minutes")
usage_hours = _usage("usage_hours")
usage_days = _usage("usage_days")

usage_pending = Table(
    "usage_pending",
    metadata,
    Column("step", _ID, primary_key=True),
    Column("start", _INSTANT, primary_key=True),
    # Tells whoever sums the step up whether it changed meanwhile.
    Column("changes", BigInteger, nullable=False, server_default=text("1")),
    CheckConstraint("step IN ('hour', 'day')", name="step"),
)

usage_state = Table(
    "usage_state",
    metadata,
    Column("name", _ID, primary_key=True),
    Column("value", Text, nullable=False),
)

usage_gone = Table(
    "usage_gone",
    metadata,
    # Of the tenant's id: what is left of an erased tenant must not tell who it was.
    Column("digest", LargeBinary, primary_key=True),
    Column("at", _INSTANT, nullable=False),
)

neighbours = Table(
    "neighbours",
    metadata,
    Column("tenant", _ID, primary_key=True),
    Column("computed_at", _INSTANT, nullable=False),
    Column("window_seconds", Integer, nullable=False),
    Column("tier", _ID, nullable=False),
    Column("requests", BigInteger, nullable=False),
    Column("denied", BigInteger, nullable=False),
    Column("in_flight_us", BigInteger, nullable=False),
    Column("job_run_us", BigInteger, nullable=False),
    Column("share", Double, nullable=False),
    Column("fair_share", Double, nullable=False),
    Column("resource", Text, nullable=False),
    Column("verdict", Text, nullable=False),
    Column("reason", Text),
    # When the tenant was last judged to be so: nobody is told anew of what came and went.
    Column("noisy_at", _INSTANT),
    Column("victim_at", _INSTANT),
    CheckConstraint("verdict IN ('noisy', 'normal', 'victim')", name="verdict"),
)

notices = Table(
    "notices",
    metadata,
    Column("id", _ID, primary_key=True),
    Column("at", _INSTANT, nullable=False, server_default=func.clock_timestamp()),
    Column("kind", _ID, nullable=False),
    # No foreign key: a notice may be of a tenant that only `default_tier` serves, or of none.
    Column("tenant", _ID),
    Column("body", JSONB, nullable=False),
    Column("delivered_at", _INSTANT),
    Column("failed_at", _INSTANT),
    Column("attempts", Integer, nullable=False, server_default=text("0")),
    # Digests of the URLs that took it, or want none, each with which: they are not asked again.
    Column("settled", ARRAY(Text), nullable=False, server_default=text("'{}'")),
    Column("error", Text),
    Index(None, "at", postgresql_where=text("delivered_at IS NULL")),
    Index(None, "tenant", "at"),
)
