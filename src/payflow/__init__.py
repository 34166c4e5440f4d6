"""Payflow: an inter-bank payment system. Start reading at ARCHITECTURE.md."""

__version__ = "0.1.0"
