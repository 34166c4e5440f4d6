"""The supervisor: one warm parent that forks every service, watches it, restarts it, and stops all of them.

It holds no thread, no event loop and no connection, so that a fork at any moment is a clean copy.
"""
