"""Readers of event files, one format a file or folder; what columns and arrays have in common."""
