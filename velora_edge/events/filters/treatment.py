"""What is done to a camera's events before a model sees them: how the camera sees, and what is not wanted."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from velora_edge.events.filters.filters import FilterChain, PixelMask, RateCap, make_filter, read_rate
from velora_edge.events.geometry.calibration import View, ViewedEvents
from velora_edge.events.geometry.calibration_files import read_calibration
from velora_edge.events.geometry.hot_pixels import read_mask

if TYPE_CHECKING:
    from velora_edge.events.base import EventFilter
    from velora_edge.events.geometry.calibration import Flip


@dataclass(frozen=True, slots=True)
class Treatment:
    """What a user says of the event camera itself; what the model wants is in its manifest.

    Attributes:
        calibration: file, see `read_calibration`.
        depth_m: how far the scene is; None: far.
        hot_pixels: file of a mask, see `read_mask`.
        flip: horizontal, vertical or both.
        rotate: degrees clockwise: 0, 90, 180 or 270.
        filters: in order, see `make_filter`.
        rate_cap: events a second, see `read_rate`.
    """

    calibration: str | None = None
    depth_m: float | None = None
    hot_pixels: str | None = None
    flip: str | None = None
    rotate: int = 0
    filters: tuple[str, ...] = ()
    rate_cap: str | None = None

    def view(self, sensor: tuple[int, int]) -> View:
        """How the camera sees: through its calibration, then flipped, then rotated, without hot pixels.

        Args:
            sensor: width and height, pixels.

        Raises:
            InputError: if a file cannot be used, or is for another sensor.
        """
        view = self._unmasked_view(sensor)
        return view if self.hot_pixels is None else view.without(read_mask(self.hot_pixels))

    def filter_chain(self, sensor: tuple[int, int]) -> FilterChain:
        """The filters that were asked for; empty where none was.

        Hot pixels come first where there are others: a filter of background activity would take them for
        neighbours. Where there are none, the view leaves them out, which costs nothing.

        Raises:
            InputError: if there is no such filter.
        """
        wanted: list[EventFilter] = [make_filter(text, sensor) for text in self.filters]
        if self.rate_cap is not None:
            wanted.append(RateCap(read_rate(self.rate_cap)))
        return FilterChain([*self._pixel_mask(sensor), *wanted] if wanted else [])

    def rewriting_chain(self, sensor: tuple[int, int]) -> tuple[FilterChain, tuple[int, int]]:
        """Filters that leave the events as the view shows them, and the view's width and height.

        Raises:
            InputError: see `view` and `filter_chain`.
        """
        chain = self.filter_chain(sensor).filters or self._pixel_mask(sensor)
        if self.calibration is None and self.flip is None and not self.rotate:
            return FilterChain(chain), sensor
        view = self._unmasked_view(sensor)
        return FilterChain([*chain, ViewedEvents(view)]), (view.view_hw[1], view.view_hw[0])

    def without_cap(self) -> Treatment:
        """The same without the cap on the event rate."""
        return replace(self, rate_cap=None)

    def _unmasked_view(self, sensor: tuple[int, int]) -> View:
        if self.calibration is None:
            view = View.of_sensor((sensor[1], sensor[0]))
        else:
            depth_m = np.inf if self.depth_m is None else self.depth_m
            view = read_calibration(self.calibration, sensor, depth_m=depth_m)
        if self.flip is not None:
            view = view.flipped(cast("Flip", self.flip))
        return view.rotated(self.rotate)

    def _pixel_mask(self, sensor: tuple[int, int]) -> tuple[PixelMask, ...]:
        if self.hot_pixels is None:
            return ()
        mask = View.of_sensor((sensor[1], sensor[0])).without(read_mask(self.hot_pixels)).mask
        return () if mask is None else (PixelMask(mask),)
