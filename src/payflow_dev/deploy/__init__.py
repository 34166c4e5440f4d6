"""Writes the files of `deploy/` that follow from the code: services, callers, published addresses, problems."""
