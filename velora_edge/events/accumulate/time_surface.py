"""Time surface: how recent the last event of each polarity is at each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._compile import kernel
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput

LONGEST_US = (1 << 31) - 2
"""Of a window, 35 minutes; later events count as its end."""


class TimeSurfaceState(NamedTuple):
    """last: int32[(1 + pixels) * 2], OFF and ON beside each other; window_us: int64[2].

    Holds 1 + the time of the last event since the window's start, or 0 where there was none.
    """

    last: Any
    window_us: Any


@FIND_PLACE.when(TimeSurfaceState)
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(2) * np.int64(cell) + np.int64(p)


@ADD_EVENT.when(TimeSurfaceState)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
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
