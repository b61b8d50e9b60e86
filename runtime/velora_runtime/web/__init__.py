"""Web page, metrics and streams of a run; the pipeline never waits for them."""
