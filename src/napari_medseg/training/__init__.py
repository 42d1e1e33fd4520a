"""Learning: one loop, objectives, losses, data."""
