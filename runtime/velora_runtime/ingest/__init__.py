"""Ingest of a live event camera: packets, their queue and their stream."""
