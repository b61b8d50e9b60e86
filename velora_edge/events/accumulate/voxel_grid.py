"""Voxel grid: the sum of polarities in three slices of the window, one a channel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._compile import kernel
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput

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
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(BINS) * np.int64(cell)


@ADD_EVENT.when(VoxelState)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
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
