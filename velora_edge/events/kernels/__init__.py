"""What compiled kernels share: compilation, bits, sinks, frames and arrays."""
