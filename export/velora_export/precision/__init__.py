"""Half precision, INT8 and their calibration."""
