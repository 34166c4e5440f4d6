"""Writes the files of `deploy/` that follow from the code: which services there are, what they publish, how they fail."""
