"""Accumulation of events into frames: registration and representations."""
