"""A stream that comes faster than it was recorded, such as a file in a pipe, is held back to its speed."""

from __future__ import annotations

LEAD_US = 200_000
"""A camera does not gain so much on the host's clock within `OVER_US`; a file does at once."""
OVER_US = 1_000_000
FASTER, FASTER_AT_FIRST, AT_FIRST_US = 1.02, 3.0, 2_000_000
"""A little faster than it was recorded: a camera that was taken for a file, for it had something in store,
comes into its own again, whatever its clock. Beside another camera, that is much faster in a connection's
first 2 s: what it sent while the other one was opened is always in store."""
TRUSTED_US = 5_000_000
"""A stream that was no faster for so long is a camera: what then comes at once comes after a stall."""
RECENT_US = 100_000


class BurstPacer:
    """Tells how long to hold a stream back. Single-threaded: the camera's thread.

    Attributes:
        is_pouring: it comes faster than it was recorded.
        hurries: what is in store at first is given out faster.
    """

    def __init__(self) -> None:
        self.hurries = False
        self.begin()

    def begin(self) -> None:
        """A new connection."""
        self._from: tuple[int, int] | None = None
        self._early_us = self._calm_us = 0
        self._begun_us: int | None = None
        self.is_pouring = False

    def holds(self, now_us: int) -> bool:
        """The stream was held back a moment ago; may be asked by any thread."""
        return self.is_pouring and now_us - self._early_us < RECENT_US

    def due_us(self, device_us: int, now_us: int) -> int:
        """The host's time at which data of this device time is due; `now_us` for a live camera."""
        if self._from is None or device_us < self._from[0]:
            self._from = device_us, now_us
            return now_us
        at_us, since_us = self._from
        if self._begun_us is None:
            self._begun_us = self._calm_us = since_us
        if not self.is_pouring:
            if now_us - self._calm_us > TRUSTED_US:
                return now_us
            self.is_pouring = device_us - at_us > now_us - since_us + LEAD_US
            if now_us - since_us > OVER_US or self.is_pouring:
                self._from, self._early_us = (device_us, now_us), now_us
            return now_us
        is_first = self.hurries and now_us - self._begun_us < AT_FIRST_US
        due_us = since_us + round((device_us - at_us) / (FASTER_AT_FIRST if is_first else FASTER))
        if is_first:
            self._from = device_us, due_us
        if due_us > now_us:
            self._early_us = now_us
        elif now_us - self._early_us > OVER_US:
            self.is_pouring, self._from, self._calm_us = False, (device_us, now_us), now_us
        return max(due_us, now_us)
