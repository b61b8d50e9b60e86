"""Clocks of cameras: maps to the host's clock, frame periods, pacing."""
