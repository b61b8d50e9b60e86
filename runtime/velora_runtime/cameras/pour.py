"""A stream that comes faster than it was recorded, such as a file in a pipe, is held back to its speed."""

from __future__ import annotations

LEAD_US = 200_000
"""A camera does not gain so much on the host's clock within `OVER_US`; a file does at once."""
OVER_US = 1_000_000
FASTER = 1.02
"""A little faster than it was recorded: a camera that was taken for a file, for it had something in store,
comes into its own again, whatever its clock."""


class Pour:
    """Tells how long to hold a stream back. Single-threaded: the camera's thread.

    Attributes:
        is_pouring: it comes faster than it was recorded.
    """

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """A new connection."""
        self._from: tuple[int, int] | None = None
        self._early_us = 0
        self.is_pouring = False

    def due_us(self, device_us: int, now_us: int) -> int:
        """The host's time at which data of this device time is due; `now_us` for a live camera."""
        if self._from is None or device_us < self._from[0]:
            self._from = device_us, now_us
            return now_us
        at_us, since_us = self._from
        if not self.is_pouring:
            self.is_pouring = device_us - at_us > now_us - since_us + LEAD_US
            if now_us - since_us > OVER_US or self.is_pouring:
                self._from, self._early_us = (device_us, now_us), now_us
            return now_us
        due_us = since_us + round((device_us - at_us) / FASTER)
        if due_us > now_us:
            self._early_us = now_us
        elif now_us - self._early_us > OVER_US:
            self.is_pouring, self._from = False, (device_us, now_us)
        return max(due_us, now_us)
