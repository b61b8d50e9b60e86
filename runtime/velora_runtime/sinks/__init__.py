"""Sinks of predictions."""
