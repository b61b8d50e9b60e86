"""Recordings: folders with what cameras and model gave, written while the pipeline runs, and read again."""
