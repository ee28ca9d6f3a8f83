"""Usage by minute, hour and day; who is noisy and who suffers; notices; audit lines of the erased.

The index on the ledger holds up changes of durable quotas while it is built, some seconds for
each ten million lines.
"""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

revision = "0003"
down_revision = "0002"

_ID = sa.Text(collation="C")
_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables of usage."""
    for table in ("usage_minutes", "usage_hours", "usage_days"):
        op.create_table(
            table,
            sa.Column("tenant", _ID, nullable=False),
            sa.Column("meter", _ID, nullable=False),
            sa.Column("start", _INSTANT, nullable=False),
            sa.Column("value", sa.BigInteger, nullable=False),
            sa.PrimaryKeyConstraint("tenant", "meter", "start", name=f"{table}_pkey"),
            postgresql_partition_by="RANGE (start)",
        )
    _create_bookkeeping()
    _create_neighbours_and_notices()
    op.create_index("quota_ledger_at_idx", "quota_ledger", ["at"])
    for table in ("usage_minutes", "usage_hours", "usage_days", "neighbours"):
        op.execute(f"GRANT SELECT ON {table} TO partywall_tenant")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_sidecar ON {table} TO CURRENT_USER USING (true)")
        op.execute(
            f"CREATE POLICY {table}_own ON {table} FOR SELECT TO partywall_tenant"
            " USING (tenant = current_setting('app.tenant_id', true))"
        )
    # They name no tenant, and which table a tenant's point is read from stands in them.
    op.execute("GRANT SELECT ON usage_pending, usage_state TO partywall_tenant")
    op.execute(_AUDIT_APPEND_ONLY)


def _create_bookkeeping() -> None:
    op.create_table(
        "usage_pending",
        sa.Column("step", _ID, nullable=False),
        sa.Column("start", _INSTANT, nullable=False),
        sa.Column("changes", sa.BigInteger, nullable=False, server_default=sa.text("1")),
        sa.PrimaryKeyConstraint("step", "start", name="usage_pending_pkey"),
        sa.CheckConstraint("step IN ('hour', 'day')", name="usage_pending_step_check"),
    )
    op.create_table(
        "usage_state",
        sa.Column("name", _ID, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.PrimaryKeyConstraint("name", name="usage_state_pkey"),
    )
    op.create_table(
        "usage_gone",
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("digest", name="usage_gone_pkey"),
    )


def _create_neighbours_and_notices() -> None:
    op.create_table(
        "neighbours",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("computed_at", _INSTANT, nullable=False),
        sa.Column("window_seconds", sa.Integer, nullable=False),
        sa.Column("tier", _ID, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("denied", sa.BigInteger, nullable=False),
        sa.Column("in_flight_us", sa.BigInteger, nullable=False),
        sa.Column("job_run_us", sa.BigInteger, nullable=False),
        sa.Column("share", sa.Double, nullable=False),
        sa.Column("fair_share", sa.Double, nullable=False),
        sa.Column("resource", sa.Text, nullable=False),
        sa.Column("verdict", sa.Text, nullable=False),
        sa.Column("reason", sa.Text),
        sa.Column("noisy_at", _INSTANT),
        sa.Column("victim_at", _INSTANT),
        sa.PrimaryKeyConstraint("tenant", name="neighbours_pkey"),
        sa.CheckConstraint(
            "verdict IN ('noisy', 'normal', 'victim')", name="neighbours_verdict_check"
        ),
    )
    op.create_table(
        "notices",
        sa.Column("id", _ID, nullable=False),
        sa.Column("at", _INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("kind", _ID, nullable=False),
        sa.Column("tenant", _ID),
        sa.Column("body", JSONB, nullable=False),
        sa.Column("delivered_at", _INSTANT),
        sa.Column("failed_at", _INSTANT),
        sa.Column("attempts", sa.Integer, nullable=False, server_default=sa.text("0")),
        sa.Column("settled", ARRAY(sa.Text), nullable=False, server_default=sa.text("'{}'")),
        sa.Column("error", sa.Text),
        sa.PrimaryKeyConstraint("id", name="notices_pkey"),
    )
    op.create_index(
        "notices_at_idx", "notices", ["at"], postgresql_where=sa.text("delivered_at IS NULL")
    )
    op.create_index("notices_tenant_at_idx", "notices", ["tenant", "at"])


# As the ledger of quotas: what is erased with its tenant is named in a setting of the transaction.
_AUDIT_APPEND_ONLY = """
CREATE OR REPLACE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.tenant = current_setting('partywall.erasing', true) THEN
        RETURN OLD;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'the audit log is append only';
END
$$;
DROP TRIGGER audit_is_append_only ON audit;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE ON audit
    FOR EACH ROW EXECUTE FUNCTION audit_is_append_only();
CREATE TRIGGER audit_is_not_truncated BEFORE TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
"""
