"""Counts in two planes, as other tools have them: for frames at the sensor's size, not for a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events._frame_kernels import ADD_EVENT

if TYPE_CHECKING:
    from numpy.typing import NDArray


class CountPlanesState(NamedTuple):
    """counts: uint16[2, 1 + pixels], OFF and ON; stays at 65535."""

    counts: Any


@ADD_EVENT.when(CountPlanesState)
def _add(state: Any, cell: Any, t_us: Any, p: Any) -> None:
    plane, place = np.uint64(p), np.uint64(cell)
    count = state.counts[plane, place]
    state.counts[plane, place] = count + np.uint16(count != np.uint16(65535))


class CountPlanes:
    """Events a pixel and polarity, saturating; read from `state`, as it makes no picture."""

    uses_window = False

    def __init__(self, pixels: int) -> None:
        self.state = CountPlanesState(np.zeros((2, 1 + pixels), np.uint16))

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state."""
        self.state.counts[:] = 0

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write both counts, cut off at 255, and 0."""
        pixels[:, :2] = np.minimum(self.state.counts[:, 1:].T, 255)
        pixels[:, 2] = 0
