"""What the ofac service does: screening, review cases, and telling confirm what was decided."""
