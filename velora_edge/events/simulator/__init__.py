"""Simulation of an event camera from video frames."""
