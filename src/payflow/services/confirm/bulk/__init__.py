"""Bulk orders: files of payments, stored first, then made chunk by chunk through the same use case as single ones."""
