"""Time surface: how recent the last event of each polarity is at each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events._compile import kernel
from velora_edge.events._frame_kernels import ADD_EVENT

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput


class TimeSurfaceState(NamedTuple):
    """last: int64[(1 + pixels) * 2], time of the last OFF and ON event beside each other, or `NEVER`."""

    last: Any


NEVER = np.iinfo(np.int64).min


@ADD_EVENT.when(TimeSurfaceState)
def _add(state: Any, cell: Any, t_us: Any, p: Any) -> None:
    state.last[np.uint64(2) * np.uint64(cell) + np.uint64(p)] = t_us


@kernel
def render_time_surface(last: Any, t0_us: Any, t1_us: Any, pixels: Any) -> None:
    """1 at the window's start to 255 at its end, linear, rounded down; 0 where no event fell."""
    scale = 255.0 / (t1_us - t0_us)
    for i in range(len(pixels)):
        for p in range(2):
            t = last[2 * i + 2 + p]
            if t == NEVER:
                pixels[i, p] = 0
            else:
                pixels[i, p] = np.uint8(min(max(1.0 + (t - t0_us) * scale, 1.0), 255.0))
        pixels[i, 2] = 0


class TimeSurface:
    """Channel 0 for OFF events, channel 1 for ON events, channel 2 is 0.

    A pixel is 0 where no event fell and rises linearly from 1 for a last event at the window's start to 255
    for one at its end. (The exponential form of Lagorce et al., HOTS, 2017, needs a time constant; the
    window stands in its place here.)
    """

    def __init__(self, pixels: int, event_input: EventInput) -> None:
        self.state = TimeSurfaceState(np.empty((1 + pixels) * 2, np.int64))
        self.begin(0, event_input.window_us)

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state for the window [t0, t1)."""
        self.state.last[:] = NEVER
        self.window_us = (t0_us, max(t1_us, t0_us + 1))

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write the picture, uint8[H * W, 3]."""
        render_time_surface(self.state.last, *self.window_us, pixels)
