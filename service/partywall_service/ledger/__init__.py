"""What PostgreSQL keeps: tenants, overrides, tokens and the audit log."""
