"""Writes the files of `deploy/` that follow from the code: services, what they publish, how they fail."""
