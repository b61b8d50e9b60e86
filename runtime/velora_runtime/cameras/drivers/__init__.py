"""Camera drivers, one device or protocol a file, and their registry."""
