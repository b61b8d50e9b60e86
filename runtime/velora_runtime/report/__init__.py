"""Counts, histograms and metrics of a run."""
