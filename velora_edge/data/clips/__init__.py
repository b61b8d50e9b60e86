"""Clips, their settings, splits and augmentation, and the store that they are packed into."""
