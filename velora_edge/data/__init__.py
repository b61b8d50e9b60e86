"""Data sets and clips."""
