"""Recorded sources: videos, image folders, recording folders, AEDAT4 frames."""
