"""Payments from the customer's request to their end state: the saga."""
