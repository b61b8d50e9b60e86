"""Recordings of a run: folders written while the pipeline runs."""
