"""Latency, parity and acceptance of an export."""
