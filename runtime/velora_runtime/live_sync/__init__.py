"""Synchronisation of live cameras."""
