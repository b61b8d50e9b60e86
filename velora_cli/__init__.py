"""Command line, one file a command; each is imported by `velora_cli.main` when it is called."""
