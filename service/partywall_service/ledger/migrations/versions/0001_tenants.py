"""Tenants, their domains and overrides, tokens, the audit log, and row-level security."""

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects.postgresql import JSONB

revision = "0001"
down_revision = None

# A migration says what it did when it was written, so nothing here is imported from the tables
# of today; a test holds the two equal.
_ID = sa.Text(collation="C")
_INSTANT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Builds the first tables."""
    _create_tables()
    op.execute(_ROLE)
    op.execute(_SCHEMA_USAGE)
    for table in ("tenants", "tenant_domains", "overrides"):
        op.execute(f"GRANT SELECT ON {table} TO partywall_tenant")
        op.execute(f"ALTER TABLE {table} ENABLE ROW LEVEL SECURITY")
        # FORCE, or the policies would not bind the owner, which the sidecar is.
        op.execute(f"ALTER TABLE {table} FORCE ROW LEVEL SECURITY")
        op.execute(f"CREATE POLICY {table}_sidecar ON {table} TO CURRENT_USER USING (true)")
        op.execute(
            f"CREATE POLICY {table}_own ON {table} FOR SELECT TO partywall_tenant"
            " USING (tenant = current_setting('app.tenant_id', true))"
        )
    op.execute(_APPEND_ONLY)


def _create_tables() -> None:
    op.create_table(
        "tenants",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("tier", _ID, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.Column("updated_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("tenant", name="tenants_pkey"),
        sa.CheckConstraint(
            "status IN ('provisioning', 'active', 'suspended')", name="tenants_status_check"
        ),
    )
    op.create_index("tenants_tier_tenant_idx", "tenants", ["tier", "tenant"])
    op.create_index("tenants_status_tenant_idx", "tenants", ["status", "tenant"])
    op.create_table(
        "tenant_domains",
        sa.Column("domain", _ID, nullable=False),
        sa.Column("tenant", _ID, nullable=False),
        sa.PrimaryKeyConstraint("domain", name="tenant_domains_pkey"),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.tenant"], "tenant_domains_tenant_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("domain = lower(domain)", name="tenant_domains_lower_case_check"),
    )
    op.create_index("tenant_domains_tenant_domain_idx", "tenant_domains", ["tenant", "domain"])
    op.create_table(
        "overrides",
        sa.Column("tenant", _ID, nullable=False),
        sa.Column("kind", _ID, nullable=False),
        sa.Column("name", _ID, nullable=False),
        sa.Column("value", JSONB, nullable=False),
        sa.Column("expires_at", _INSTANT),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("author", sa.Text, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("tenant", "kind", "name", name="overrides_pkey"),
        sa.ForeignKeyConstraint(
            ["tenant"], ["tenants.tenant"], "overrides_tenant_fkey", ondelete="CASCADE"
        ),
        sa.CheckConstraint("kind IN ('limits', 'quotas', 'jobs')", name="overrides_kind_check"),
    )
    op.create_table(
        "tokens",
        sa.Column("id", _ID, nullable=False),
        sa.Column("scope", sa.Text, nullable=False),
        sa.Column("tenant", _ID),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("digest", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _INSTANT, nullable=False, server_default=sa.func.now()),
        sa.PrimaryKeyConstraint("id", name="tokens_pkey"),
        sa.CheckConstraint("scope IN ('admin', 'host', 'tenant')", name="tokens_scope_check"),
        sa.CheckConstraint(
            "(scope = 'tenant') = (tenant IS NOT NULL)", name="tokens_tenant_scope_check"
        ),
    )
    op.create_index("tokens_tenant_idx", "tokens", ["tenant"])
    op.create_table(
        "audit",
        sa.Column("id", sa.BigInteger, sa.Identity(always=True), nullable=False),
        sa.Column("at", _INSTANT, nullable=False, server_default=sa.func.clock_timestamp()),
        sa.Column("actor", sa.Text, nullable=False),
        sa.Column("action", sa.Text, nullable=False),
        sa.Column("tenant", _ID),
        sa.Column("detail", JSONB, nullable=False),
        sa.PrimaryKeyConstraint("id", name="audit_pkey"),
    )
    op.create_index("audit_tenant_id_idx", "audit", ["tenant", "id"])


# Roles belong to the server, not to a database, and advisory locks do not reach across databases:
# another one's migration may make or grant the role at the same moment, and what it made will do.
_ROLE = """
DO $$
DECLARE
    needed text := CASE WHEN current_setting('server_version_num')::int >= 160000
                        THEN 'SET' ELSE 'MEMBER' END;
BEGIN
    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = 'partywall_tenant') THEN
        BEGIN
            CREATE ROLE partywall_tenant NOLOGIN NOBYPASSRLS;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END IF;
    IF NOT pg_has_role(current_user, 'partywall_tenant', needed) THEN
        BEGIN
            GRANT partywall_tenant TO CURRENT_USER;
        EXCEPTION WHEN duplicate_object OR unique_violation THEN
            NULL;
        END;
    END IF;
EXCEPTION WHEN insufficient_privilege THEN
    RAISE insufficient_privilege USING MESSAGE = format(
        'an administrator must first run: CREATE ROLE partywall_tenant NOLOGIN;'
        ' GRANT partywall_tenant TO %I;', current_user);
END
$$
"""

# Everyone may use the schema "public"; of any other the tenant's role must be told.
_SCHEMA_USAGE = """
DO $$
BEGIN
    IF NOT has_schema_privilege('partywall_tenant', current_schema(), 'USAGE') THEN
        EXECUTE format('GRANT USAGE ON SCHEMA %I TO partywall_tenant', current_schema());
    END IF;
END
$$
"""

_APPEND_ONLY = """
CREATE FUNCTION audit_is_append_only() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE insufficient_privilege USING MESSAGE = 'the audit log is append only';
END
$$;
CREATE TRIGGER audit_is_append_only BEFORE UPDATE OR DELETE OR TRUNCATE ON audit
    FOR EACH STATEMENT EXECUTE FUNCTION audit_is_append_only();
"""
