"""Event representations: polarity image, two-channel counts, time surface and voxel grid."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE
from velora_edge.events.kernels._intrinsics import kernel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput


class PolarityState(NamedTuple):
    """last: uint8[1 + pixels], 0 where no event fell, else 1 for OFF and 2 for ON."""

    last: Any


@FIND_PLACE.when(PolarityState)
def _find_polarity(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(cell)


@ADD_EVENT.when(PolarityState)
def _add_polarity(state: Any, place: Any, t_us: Any, p: Any) -> None:
    state.last[np.uint64(place)] = np.uint8(1) + np.uint8(p)


@kernel
def render_polarity(last: Any, palette: Any, pixels: Any) -> None:
    """Colour each pixel by its state."""
    for i in range(len(pixels)):
        kind = last[i + 1]
        pixels[i, 0], pixels[i, 1], pixels[i, 2] = palette[kind, 0], palette[kind, 1], palette[kind, 2]


class PolarityImage:
    """The look of the published data sets: the palette's colour of the last event at each pixel.

    Where several events of a window fall on one pixel, the last in stream order wins, so the picture shows
    the newest edge; it cannot overflow.
    """

    uses_window = False

    def __init__(self, pixels: int, event_input: EventInput) -> None:
        colours = event_input.palette
        self.palette = np.array([colours.background, colours.off, colours.on], np.uint8)
        self.state = PolarityState(np.zeros(1 + pixels, np.uint8))

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state."""
        self.state.last[:] = 0

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write the picture, uint8[H * W, 3]."""
        render_polarity(self.state.last, self.palette, pixels)


class CountState(NamedTuple):
    """counts: uint8[(1 + pixels) * 2], OFF and ON beside each other; stays at 255."""

    counts: Any


@FIND_PLACE.when(CountState)
def _find_count(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(2) * np.int64(cell) + np.int64(p)


@ADD_EVENT.when(CountState)
def _add_count(state: Any, place: Any, t_us: Any, p: Any) -> None:
    count = state.counts[np.uint64(place)]
    if count != np.uint8(255):
        state.counts[np.uint64(place)] = count + np.uint8(1)


@kernel
def render_counts(counts: Any, pixels: Any) -> None:
    """Both counts, and 0."""
    for i in range(np.uint64(len(pixels))):
        at = np.uint64(2) * i + np.uint64(2)
        pixels[i, 0], pixels[i, 1], pixels[i, 2] = counts[at], counts[at + np.uint64(1)], 0


class TwoChannelCounts:
    """Channel 0 counts OFF events, channel 1 ON events, both saturating at 255; channel 2 is 0."""

    uses_window = False

    def __init__(self, pixels: int, event_input: EventInput) -> None:
        self.state = CountState(np.zeros((1 + pixels) * 2, np.uint8))

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state."""
        self.state.counts[:] = 0

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write the picture, uint8[H * W, 3]."""
        render_counts(self.state.counts, pixels)


LONGEST_US = (1 << 31) - 2
"""Of a window, 35 minutes; later events count as its end."""


class TimeSurfaceState(NamedTuple):
    """last: int32[(1 + pixels) * 2], OFF and ON beside each other; window_us: int64[2].

    Holds 1 + the time of the last event since the window's start, or 0 where there was none.
    """

    last: Any
    window_us: Any


@FIND_PLACE.when(TimeSurfaceState)
def _find_surface(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(2) * np.int64(cell) + np.int64(p)


@ADD_EVENT.when(TimeSurfaceState)
def _add_surface(state: Any, place: Any, t_us: Any, p: Any) -> None:
    since = min(max(t_us - state.window_us[0], 0), LONGEST_US)
    state.last[np.uint64(place)] = 1 + since


@kernel
def render_time_surface(last: Any, length_us: Any, pixels: Any) -> None:
    """1 at the window's start to 255 at its end, linear, rounded down; 0 where no event fell."""
    scale = 255.0 / length_us
    for i in range(len(pixels)):
        for p in range(2):
            since = last[2 * i + 2 + p]
            pixels[i, p] = np.uint8(min(1.0 + (since - 1) * scale, 255.0)) if since else np.uint8(0)
        pixels[i, 2] = 0


class TimeSurface:
    """Channel 0 for OFF events, channel 1 for ON events, channel 2 is 0.

    A pixel is 0 where no event fell and rises linearly from 1 for a last event at the window's start to 255
    for one at its end. (The exponential form of Lagorce et al., HOTS, 2017, needs a time constant; the
    window stands in its place here.)
    """

    uses_window = True

    def __init__(self, pixels: int, event_input: EventInput) -> None:
        self.state = TimeSurfaceState(np.zeros((1 + pixels) * 2, np.int32), np.zeros(2, np.int64))
        self.begin(0, event_input.window_us)

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state for the window [t0, t1)."""
        self.state.last[:] = 0
        self.state.window_us[:] = (t0_us, max(t1_us, t0_us + 1))

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write the picture, uint8[H * W, 3]."""
        start_us, end_us = self.state.window_us
        render_time_surface(self.state.last, int(end_us - start_us), pixels)


BINS = 3
EVENT = 256
"""An event's whole weight in the grid's fixed point."""
LEVELS = 16
"""Grey levels for one event."""
SCALE_BITS = 31
"""Fraction of the scale of times: a multiplication, as dividing for each event would take half the time."""
FULL = 8 * EVENT
"""Where a voxel saturates: 8 events, which is the end of the grey scale."""


class VoxelState(NamedTuple):
    """grid: int32[(1 + pixels) * 3], fixed point; window: int64[3], its start, length and scale."""

    grid: Any
    window: Any


@FIND_PLACE.when(VoxelState)
def _find_voxel(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(BINS) * np.int64(cell)


@ADD_EVENT.when(VoxelState)
def _add_voxel(state: Any, place: Any, t_us: Any, p: Any) -> None:
    start, length, scale = state.window[0], state.window[1], state.window[2]
    at = (min(max(t_us - start, 0), length) * scale) >> SCALE_BITS
    lower = min(at // EVENT, BINS - 2)
    upper_weight = at - lower * EVENT
    sign = 2 * np.int64(p) - 1
    place = np.uint64(place) + np.uint64(lower)
    low = np.int64(state.grid[place]) + sign * (EVENT - upper_weight)
    high = np.int64(state.grid[place + np.uint64(1)]) + sign * upper_weight
    state.grid[place] = min(max(low, -FULL), FULL)
    state.grid[place + np.uint64(1)] = min(max(high, -FULL), FULL)


@kernel
def render_voxels(grid: Any, values: Any) -> None:
    """128 for nothing, 16 levels an event; 0 and 255 are the ends."""
    for i in range(len(values)):
        values[i] = min(max(128 + grid[i + BINS] * LEVELS // EVENT, 0), 255)


class VoxelGrid:
    """Three bins over the window, bilinear in time (Zhu et al., CVPR 2019), polarities added as +1 and -1.

    A pixel is 128 where nothing happened, 16 levels brighter for each ON event and darker for each OFF event
    of its bin. Voxels saturate at 8 events while they are filled, so they cannot wrap.
    """

    uses_window = True

    def __init__(self, pixels: int, event_input: EventInput) -> None:
        self.state = VoxelState(np.zeros((1 + pixels) * BINS, np.int32), np.zeros(3, np.int64))
        self.begin(0, event_input.window_us)

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state for the window [t0, t1)."""
        self.state.grid[:] = 0
        length = max(t1_us - t0_us, 1)
        self.state.window[:] = (t0_us, length, -(-((BINS - 1) * EVENT << SCALE_BITS) // length))

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write the picture, uint8[H * W, 3]."""
        render_voxels(self.state.grid, pixels.reshape(-1))
