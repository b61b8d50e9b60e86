"""A stream that comes faster than it was recorded, such as a file in a pipe, is held back to its speed."""

from __future__ import annotations

LEAD_US = 500_000
"""A camera never gains so much on the host's clock within `OVER_US`; a file does at once."""
OVER_US = 1_000_000


class Pour:
    """Tells how long to hold a stream back. Single-threaded: the camera's thread."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new connection."""
        self._from: tuple[int, int] | None = None
        self._is_pouring = False

    def due_us(self, device_us: int, now_us: int) -> int:
        """The host's time at which data of this device time is due; `now_us` or earlier for a live camera."""
        if self._from is None or device_us < self._from[0]:
            self._from = device_us, now_us
            return now_us
        at_us, since_us = self._from
        if self._is_pouring:
            return since_us + device_us - at_us
        if device_us - at_us > now_us - since_us + LEAD_US:
            self._is_pouring = True
            return since_us + device_us - at_us
        if now_us - since_us > OVER_US:
            self._from = device_us, now_us
        return now_us
