"""The hash-chained record of every event."""
