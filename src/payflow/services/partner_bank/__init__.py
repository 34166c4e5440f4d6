"""Credit transfers to and from other banks."""
