"""The public API: users, sessions, limits, and the door to everything else."""
