"""Confirm and account under a seeded scheduler that crashes, stops, duplicates, loses, reorders and delays."""
