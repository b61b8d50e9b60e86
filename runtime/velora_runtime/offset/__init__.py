"""The offset of two streams that nobody synchronised, from what moves in both."""
