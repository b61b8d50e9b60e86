"""Filters of events, and the preprocessing that the user chose."""
