"""Estimation of the offset between two streams that were not synchronised."""
