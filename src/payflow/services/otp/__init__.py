"""One-time passwords bound to one payment."""
