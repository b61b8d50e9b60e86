"""Pipeline of a run: its threads, pair requests, supervision."""
