"""What a window of events looks like to the model: the registry of representations, and counts in planes.

A representation is one file with a class and one line in `REPRESENTATIONS`, or a plugin
(`velora.representations`). All of them render to uint8[H, W, 3], the same in training and in the runtime;
none wraps around where many events fall on one pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from velora_edge.errors import ConfigError
from velora_edge.events.kernels._frame_kernels import ADD_EVENT, FIND_PLACE
from velora_edge.extensions import Extension, Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput
    from velora_edge.events.accumulate.registration import RegistrationMap


_IMAGES = "velora_edge.events.accumulate.images"
REPRESENTATIONS = Registry(
    "velora.representations",
    [
        Extension("polarity", f"{_IMAGES}:PolarityImage", "the colour of each pixel's last polarity"),
        Extension("counts", f"{_IMAGES}:TwoChannelCounts", "events a pixel, a channel each polarity"),
        Extension("time_surface", f"{_IMAGES}:TimeSurface", "how long ago a pixel's last event was"),
        Extension("voxel_grid", f"{_IMAGES}:VoxelGrid", "three bins of time with signed counts"),
    ],
)


class Representation(Protocol):
    """One way to turn a window of events into a picture; built as `cls(pixels, event_input)`.

    Attributes:
        state: a named tuple of arrays, for which `add_event` is registered (`_frame_kernels.ADD_EVENT`); the
            model's pixel i is its cell 1 + i, and cell 0 is for events that fall on none.
        uses_window: the state depends on the window's times, not on its events alone.
    """

    state: Any
    uses_window: bool

    def __init__(self, pixels: int, event_input: EventInput) -> None: ...

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the state for the window [t0, t1)."""

    def render_into(self, pixels: NDArray[np.uint8]) -> None:
        """Write the picture, uint8[H * W, 3], to the caller's array."""


class Accumulator:
    """One event frame under construction; see `velora_edge.events.base.FrameAccumulator`."""

    def __init__(self, representation: Representation, registration: RegistrationMap) -> None:
        self.representation = representation
        self.shape = registration.target_hw
        self.source_hw = registration.source_hw
        self.table = registration.table
        self.state = representation.state
        self.events = 0

    def begin(self, t0_us: int, t1_us: int) -> None:
        """Empty the frame for the window [t0, t1)."""
        self.events = 0
        self.representation.begin(t0_us, t1_us)

    def render_into(self, image: NDArray[np.uint8]) -> None:
        """Write the frame, uint8[H, W, 3], to the caller's array, which is contiguous."""
        if image.shape != (*self.shape, 3) or image.dtype != np.uint8 or not image.flags.c_contiguous:
            raise ValueError(
                f"expected a contiguous uint8 array {(*self.shape, 3)}, got {image.dtype} {image.shape}"
            )
        self.representation.render_into(image.reshape(-1, 3))


def make_accumulator(event_input: EventInput, registration: RegistrationMap) -> Accumulator:
    """An empty frame in the representation that a bundle asks for.

    Args:
        event_input: representation, palette and window, as the manifest has them.
        registration: from the sensor to the model's image.

    Raises:
        ConfigError: if there is no such representation.
    """
    known = REPRESENTATIONS.find(event_input.representation)
    if known is None:
        names = REPRESENTATIONS.names()
        raise ConfigError(
            [f"event.representation: expected one of {names}, got {event_input.representation!r}"]
        )
    kind: type[Representation] = known.load()
    height, width = registration.target_hw
    return Accumulator(kind(height * width, event_input), registration)


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
