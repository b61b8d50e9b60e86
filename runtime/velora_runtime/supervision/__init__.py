"""Watchdog, service manager and interpreter settings of a long run."""
