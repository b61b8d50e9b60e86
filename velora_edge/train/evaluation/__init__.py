"""Evaluation of a model on a data set, and its report."""
