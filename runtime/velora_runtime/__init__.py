"""Live recognition, from camera bytes to predictions; imports no torch."""
