"""Event counts in two planes, OFF and ON, for frames at the sensor's size."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CountPlanesState(NamedTuple):
    """counts: uint16[2 * (1 + pixels)], the OFF plane, then the ON plane; stays at 65535."""

    counts: Any


@FIND_PLACE.when(CountPlanesState)
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(len(state.counts) // 2) * np.int64(p) + np.int64(cell)


@ADD_EVENT.when(CountPlanesState)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
    count = state.counts[np.uint64(place)]
    if count != np.uint16(65535):
        state.counts[np.uint64(place)] = count + np.uint16(1)


class CountPlanes:
    """Events a pixel and polarity, saturating; read from `state`, as it makes no picture."""

    uses_window = False

    def __init__(self, pixels: int) -> None:
        self.state = CountPlanesState(np.zeros(2 * (1 + pixels), np.uint16))

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state."""
        self.state.counts[:] = 0

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write both counts, cut off at 255, and 0."""
        pixels[:, :2] = np.minimum(self.state.counts.reshape(2, -1)[:, 1:].T, 255)
        pixels[:, 2] = 0
