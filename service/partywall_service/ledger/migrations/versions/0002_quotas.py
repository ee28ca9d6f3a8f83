"""Quotas: levels, reservations, answered operations, the ledger of every change."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0002"
down_revision = "0001"

_ID = sa.Text(collation="C")
_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the tables of quotas."""
    op.create_table(
        "quota_levels",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("resource", _ID, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("reserved", sa.BigInteger, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("per", sa.Text),
        sa.Column("period_start", _INSTANT),
        sa.Column("crossed", sa.Integer, nullable=False),
        sa.Column("crossed_at", _INSTANT),
        sa.Column("refills", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "resource", name="quota_levels_pkey"),
        sa.CheckConstraint("used >= 0 AND reserved >= 0", name="quota_levels_amounts_check"),
    )
    op.create_table(
        "quota_reservations",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("items", JSONB, nullable=False),
        sa.Column("expires_at", _INSTANT, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("taken", JSONB(none_as_null=True)),
        sa.Column("answer", sa.Text),
        sa.Column("settled_at", _INSTANT),
        sa.PrimaryKeyConstraint("tenant", "id", name="quota_reservations_pkey"),
        sa.CheckConstraint(
            "status IN ('held', 'committed', 'cancelled', 'expired')",
            name="quota_reservations_status_check",
        ),
    )
    op.create_index(
        "quota_reservations_expires_at_tenant_idx",
        "quota_reservations",
        ["expires_at", "tenant"],
        postgresql_where=sa.text("status = 'held'"),
    )
    op.create_index(
        "quota_reservations_settled_at_idx",
        "quota_reservations",
        ["settled_at"],
        postgresql_where=sa.text("settled_at IS NOT NULL"),
    )
    op.create_table(
        "quota_operations",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("id", _ID, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("answer", sa.Text, nullable=False),
        sa.Column("kept_until", _INSTANT, nullable=False),
        sa.PrimaryKeyConstraint("tenant", "id", name="quota_operations_pkey"),
    )
    op.create_index("quota_operations_kept_until_idx", "quota_operations", ["kept_until"])
    op.create_table(
        "quota_ledger",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("at", _INSTANT, nullable=False),
        sa.Column("resource", _ID, nullable=False),
        sa.Column("operation", sa.Text, nullable=False),
        sa.Column("delta", sa.BigInteger, nullable=False),
        sa.Column("used", sa.BigInteger, nullable=False),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("idempotency_key", sa.Text),
        sa.Column("reason", sa.Text),
        sa.PrimaryKeyConstraint("tenant", "id", name="quota_ledger_pkey"),
    )
    op.create_index(
        "quota_ledger_tenant_resource_id_idx", "quota_ledger", ["tenant", "resource", "id"]
    )
    for table in ("quota_levels", "quota_reservations", "quota_ledger"):
        op.execute(f"GRANT SELECT ON {table} TO partywall_tenant")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_sidecar ON {table} TO CURRENT_USER USING (true)")
        op.execute(
            f"CREATE POLICY {table}_own ON {table} FOR SELECT TO partywall_tenant"
            " USING (tenant = current_setting('app.tenant_id', true))"
        )
    op.execute(_APPEND_ONLY)


# What is erased with its tenant is named in a setting of the transaction that erases it.
_APPEND_ONLY = """
CREATE FUNCTION quota_ledger_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF TG_OP = 'DELETE' AND OLD.tenant = current_setting('partywall.erasing', true) THEN
        RETURN OLD;
    END IF;
    RAISE insufficient_privilege USING MESSAGE = 'the quota ledger is append only';
END
$$;
CREATE TRIGGER quota_ledger_is_append_only BEFORE UPDATE OR DELETE ON quota_ledger
    FOR EACH ROW EXECUTE FUNCTION quota_ledger_is_append_only();
CREATE TRIGGER quota_ledger_is_not_truncated BEFORE TRUNCATE ON quota_ledger
    FOR EACH STATEMENT EXECUTE FUNCTION quota_ledger_is_append_only();
"""
