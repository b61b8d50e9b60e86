"""The polarity image: each pixel in the colour of the last event that fell on it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from velora_edge.events.kernels._compile import kernel
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput


class PolarityState(NamedTuple):
    """last: uint8[1 + pixels], 0 where no event fell, else 1 for OFF and 2 for ON."""

    last: Any


@FIND_PLACE.when(PolarityState)
def _find(state: Any, cell: Any, p: Any) -> Any:
    return np.int64(cell)


@ADD_EVENT.when(PolarityState)
def _add(state: Any, place: Any, t_us: Any, p: Any) -> None:
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
