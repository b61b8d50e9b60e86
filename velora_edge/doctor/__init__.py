"""Probes of `velora doctor`, each in a process of its own, and advice drawn from them."""
