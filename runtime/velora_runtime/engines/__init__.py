"""Inference engines and the ring of tokens."""
