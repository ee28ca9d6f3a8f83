"""The REST API, CONTRACT section 4."""
