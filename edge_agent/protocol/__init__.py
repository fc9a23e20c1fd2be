"""What the three programs agree on."""
