"""Frames onto the event camera's clock by way of the host's, which stamps what comes from both."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from velora_edge.preprocessing.sync import Placed

if TYPE_CHECKING:
    from velora_edge.datatypes import RGBFrame
    from velora_runtime.clocks.clock_map import ClockMap


class StampedFrames(Protocol):
    """An RGB camera whose clock is known on the host's; see `velora_runtime.cameras.live_rgb.LiveRGB`."""

    @property
    def clock_map(self) -> ClockMap:
        """Its clock on the host's."""

    @property
    def is_host_clock(self) -> bool:
        """Its times are the host's."""


class HostSync:
    """Both clocks are followed on the host's: offset and drift, whatever the jitter.

    What neither clock tells is how long the fastest data takes from the sensor to the host; the difference of
    the two ways stays as a constant offset, which `offset=US` or `rgb.delay_us` takes away.

    The skew of a frame is how far the estimate has moved within the last second.

    Single-threaded: the RGB camera's thread.

    Args:
        rgb: the RGB camera.
        event_map: the event stream's clock on the host's.
        offset_us: added to what the clocks say.
    """

    def __init__(self, rgb: StampedFrames, event_map: ClockMap, offset_us: int = 0) -> None:
        self._rgb, self._event_map, self._offset_us = rgb, event_map, offset_us
        self.line = "by the host's clock" + (f", {offset_us:+d} us" if offset_us else "")

    @property
    def is_settled(self) -> bool:
        """Both clocks have been seen for long enough."""
        return self._event_map.is_settled and (self._rgb.is_host_clock or self._rgb.clock_map.is_settled)

    def event_us(self, frame: RGBFrame) -> int | None:
        """A frame's time on the event clock; None before there is one."""
        if not self._event_map.is_known:
            return None
        rgb = self._rgb
        host_us = frame.t_us if rgb.is_host_clock else rgb.clock_map.to_host_us(frame.t_us)
        return self._event_map.to_device_us(host_us) + self._offset_us

    def place(self, frame: RGBFrame) -> Placed | None:
        """The frame on the event clock; None while the event camera has never given anything."""
        t_us = self.event_us(frame)
        if t_us is None:
            return None
        moved_us = self._rgb.clock_map.moved_us - self._event_map.moved_us
        return Placed(replace(frame, t_us=t_us + moved_us), t_us)
