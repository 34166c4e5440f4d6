"""The ways to and from other banks."""
