"""From camera bytes to predictions; imports no torch, anywhere."""
