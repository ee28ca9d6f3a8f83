"""Usage: what tenants did, by minute, hour and day; who is noisy and who suffers."""
