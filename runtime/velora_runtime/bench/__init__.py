"""Benchmarks of a model on this machine: parts, live runs, limits, power, and their verdict."""
