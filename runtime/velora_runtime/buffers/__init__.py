"""Bounded queues and free lists between threads."""
