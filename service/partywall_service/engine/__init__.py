"""The sliding windows: one arithmetic, in memory and in Redis."""
