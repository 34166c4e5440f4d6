"""Sanctions screening: the lists, who is on them, and what a compliance officer decided."""
