"""Preprocessing of a camera's events before a model sees them: calibration, hot pixels and filters."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.events.base import EventStream
from velora_edge.events.filters.filters import FilterChain, PixelMask, RateCap, make_filter, read_rate
from velora_edge.events.geometry.calibration import View, ViewedEvents
from velora_edge.events.geometry.calibration_files import read_calibration, read_mask
from velora_edge.events.kernels import _frame_kernels as kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.datatypes import TriggerBatch
    from velora_edge.events.base import EventFilter, EventTap, FrameAccumulator
    from velora_edge.events.geometry.calibration import Flip


@dataclass(frozen=True, slots=True)
class EventPreprocessing:
    """Preprocessing that belongs to the event camera; what belongs to the model is in its manifest.

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
        """Make the camera's view: through its calibration, then flipped, then rotated, without hot pixels.

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

    def without_cap(self) -> EventPreprocessing:
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


_BATCH_EVENTS = 1 << 17
_FAR_AHEAD = np.iinfo(np.int64).max


class FilteredStream(EventStream):
    """The events of another stream that pass filters.

    Events are decoded to arrays for that, where they went straight into frames before. Windows stay where
    they are: `t_next_us` is the other stream's, and what filters hold back they give at the window's end. A
    listener gets everything, unfiltered. What was dropped is counted in the chain, and nowhere else. Times
    are the stream's, so `shift_us` is 0.

    Single-threaded: whoever packs frames from it.

    Args:
        stream: the other one; closed with this one.
        chain: of filters for its sensor.

    Raises:
        TypeError: from walking over events, if the other stream gives its events to frames only.
    """

    def __init__(self, stream: EventStream, chain: FilterChain) -> None:
        self.width, self.height, self.is_live = stream.width, stream.height, stream.is_live
        self.chain = chain
        self._stream = stream
        self._counts = np.zeros(1, np.int64)

    @property
    def t_next_us(self) -> int | None:
        """Time of the other stream's next event, which may not pass; None at its end."""
        return self._stream.t_next_us

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Wait until all events of [t0, t1) are there, or will not come; whether the camera was there."""
        return self._stream.await_window(t0_us, t1_us, meanwhile)

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels of the other stream and of the filters; adds nothing."""
        self._stream.warm_up(frame)
        self._add(self.chain.apply(EventBatch.empty()), frame)

    def skip_until(self, t_us: int) -> int:
        """Pass over the events before `t_us`, through the filters; return how many passed these."""
        skipped = 0
        while len(batch := self._stream.read_batch(_BATCH_EVENTS, t_us)):
            skipped += len(self.chain.apply(batch))
        return skipped + len(self.chain.flush(t_us))

    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` that pass to the frame; return how many passed."""
        self._check_sensor(frame)
        passed = 0
        self._counts[0] = 0
        while len(batch := self._stream.read_batch(_BATCH_EVENTS, t1_us)):
            passed += self._add(self.chain.apply(batch), frame)
        passed += self._add(self.chain.flush(t1_us), frame)
        frame.events += int(self._counts[0])
        return passed

    def read_batch(self, most: int, t1_us: int) -> EventBatch:
        """The next events before `t1_us` that pass; none only where there are no more before it."""
        while len(batch := self._stream.read_batch(most, t1_us)):
            passed = self.chain.apply(batch)
            if len(passed):
                return passed
        return self.chain.flush(t1_us)

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges walked over since the last call."""
        return self._stream.take_triggers()

    def listen(self, tap: EventTap) -> None:
        """Let `tap` have what the other stream takes in from now on."""
        self._stream.listen(tap)

    def close(self) -> None:
        """Close files and devices."""
        self._stream.close()

    def _add(self, batch: EventBatch, frame: FrameAccumulator) -> int:
        columns = batch.t_us, batch.x, batch.y, batch.p
        kernels.accumulate_arrays(*columns, 0, _FAR_AHEAD, frame.table, frame.state, self._counts)
        return len(batch)
