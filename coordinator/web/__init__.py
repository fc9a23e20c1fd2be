"""The coordinator's dashboard: what the fleet sees, how fast, how healthy."""
