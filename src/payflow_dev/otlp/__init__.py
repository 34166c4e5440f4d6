"""A small OTLP receiver: what Payflow sends, decoded, for tests and for eyes."""
