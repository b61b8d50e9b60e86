"""Runs of an exported model on a CPU: clips, sessions, parity and latency."""
