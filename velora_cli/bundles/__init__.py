"""Commands that make bundles and engines: export, build."""
