"""Quotas: how much of each resource a tenant holds, gated by Redis and confirmed by PostgreSQL."""
