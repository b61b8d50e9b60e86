"""Resize, crop and colour: one home, used by training and runtime."""
