"""A page, metrics and streams for whoever watches a run: they read, and the pipeline never waits."""
