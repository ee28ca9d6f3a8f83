"""What tests stand on: real servers, one run's worth of them, and sidecars as processes."""
