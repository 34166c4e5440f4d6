"""Customers, accounts, and the double-entry ledger with its holds."""
