"""Payflow on one machine: the registry, the embedded servers, the supervisor, and the command line."""
