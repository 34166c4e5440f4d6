"""Fault runs: customers pay while processes are killed, and a judge compares every word with the books."""
