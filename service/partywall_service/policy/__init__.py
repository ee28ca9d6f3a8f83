"""quotas.toml as a frozen model: what it may say, and what applies to one tenant."""
