"""One clock for a device whose own may begin anew: unplugged, reset, or a stream that starts over."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from velora_runtime.clocks.clock_map import ClockMap

LEAP_US = 5_000_000
"""A device's time that runs ahead of the host's by more was set."""


class ContinuousClock:
    """The device's times plus a shift, which changes where the device's clock does not go on.

    After such a place the times go on by the host's clock, as if nothing had happened to the device's.

    Single-threaded: the camera's thread; `clock_map` may be read by any.

    Args:
        clock_map: learns from every time that is placed.
        back_us: how far a time may lie before the latest without its being a new beginning.
        leap_us: how far it may run ahead of the host's clock, likewise; None: the host's says nothing.

    Attributes:
        shift_us: what to add to the device's times.
        begun: new beginnings, the first connection not counted.
    """

    def __init__(self, clock_map: ClockMap, back_us: int, leap_us: int | None = LEAP_US) -> None:
        self.clock_map = clock_map
        self.shift_us = self.begun = 0
        self._back_us, self._leap_us = back_us, leap_us
        self._latest_us: int | None = None
        self._is_new = True

    def begin(self) -> None:
        """The next time need not go on from the ones before."""
        self._is_new = True

    def goes_on(self, device_us: int, arrived_us: int) -> bool:
        """Whether a time goes on from the ones before."""
        if self._is_new or self._latest_us is None:
            return False
        t_us = device_us + self.shift_us
        if t_us < self._latest_us - self._back_us:
            return False
        return self._leap_us is None or t_us <= self.clock_map.to_device_us(arrived_us) + self._leap_us

    def place(self, device_us: int, arrived_us: int, since_us: int | None = None) -> int:
        """The device's time on the one clock; begins anew where it does not go on.

        Args:
            device_us: the time of what came, or of its end.
            arrived_us: when it came, host clock.
            since_us: the time of its beginning, where it covers a time.
        """
        if not self.goes_on(device_us, arrived_us):
            self._restart(device_us, arrived_us)
        t_us = device_us + self.shift_us
        self._latest_us = t_us if self._latest_us is None else max(self._latest_us, t_us)
        self.clock_map.add(t_us, arrived_us, None if since_us is None else since_us + self.shift_us)
        return t_us

    def _restart(self, device_us: int, arrived_us: int) -> None:
        self._is_new = False
        if self._latest_us is None:
            return
        self.begun += 1
        t_us = self._latest_us + 1
        if self._leap_us is not None:
            t_us = max(t_us, self.clock_map.to_device_us(arrived_us))
        self.shift_us = t_us - device_us
        self.clock_map.restart()
