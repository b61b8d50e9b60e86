"""Data sets that are rendered or simulated, and the demo recording."""
