"""Stand-ins for the vendors that carry messages: each speaks its vendor's documented format on this machine."""
