"""Reader of AEDAT4 files."""
