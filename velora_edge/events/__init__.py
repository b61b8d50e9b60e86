"""Event files and streams: formats, kernels, and accumulation straight to model resolution."""
