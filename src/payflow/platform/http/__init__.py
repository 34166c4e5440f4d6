"""The HTTP edge of every process: strict reading, problem details, admission, health, and a hardened server."""
