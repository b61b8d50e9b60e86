"""Calibration files, lenses and hot pixels."""
