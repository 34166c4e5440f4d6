"""Writes the files of `deploy/` that follow from the code: services, published addresses, problems."""
