"""Messages to customers, by event and, for one-time codes, at once."""
