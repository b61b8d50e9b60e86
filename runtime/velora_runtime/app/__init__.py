"""Runs, from options to summary."""
