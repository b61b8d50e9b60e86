"""Two-channel counts: how many events of each polarity fell on each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._compile import kernel
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput


class CountState(NamedTuple):
    """counts: uint8[(1 + pixels) * 2], OFF and ON beside each other; stays at 255."""

    counts: Any


@FIND_PLACE.when(CountState)
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(2) * np.int64(cell) + np.int64(p)


@ADD_EVENT.when(CountState)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
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
