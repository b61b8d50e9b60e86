"""Preprocessing that training and the runtime share: windows, alignment of recordings, pairs."""
