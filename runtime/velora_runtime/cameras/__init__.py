"""Live cameras: each in a thread of its own, with a state, a clock, and reconnection."""
