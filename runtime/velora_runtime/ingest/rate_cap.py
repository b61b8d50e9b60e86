"""No more events a second than the machine is to work on; what is left out is left out in whole packets."""

from __future__ import annotations

BURST_US = 100_000
"""A burst may use up what this much time allows."""


class RateCap:
    """Decides on one packet after the other. Single-threaded: the camera's thread.

    Args:
        events_per_s: the cap; None for none.
    """

    def __init__(self, events_per_s: float | None) -> None:
        self._per_us = None if events_per_s is None else events_per_s / 1e6
        self._room = 0.0 if self._per_us is None else self._per_us * BURST_US
        self._at_us: int | None = None

    def allows(self, events: int, reached_us: int) -> bool:
        """Whether a packet of so many events, which reaches to this time, is within the cap."""
        if self._per_us is None:
            return True
        passed_us = 0 if self._at_us is None else max(0, reached_us - self._at_us)
        self._at_us = reached_us
        self._room = min(self._room + passed_us * self._per_us, BURST_US * self._per_us)
        if self._room < 0:
            return False
        self._room -= events  # may go below 0: a packet is taken whole, and the next ones wait for it
        return True
