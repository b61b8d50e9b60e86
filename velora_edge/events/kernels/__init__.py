"""Kernels that formats, filters and accumulation share: compilation, sinks, frames, arrays."""
