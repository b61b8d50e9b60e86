"""One file a command; each is imported by `velora_edge.cli` when it is called."""
