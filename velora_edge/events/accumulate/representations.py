"""Representations of a window of events by name, and the registration map that all of them go through.

Registration map: for each pixel of the sensor, the pixel of the model's image on which it falls.
Cropping, scaling, lens correction, alignment and hot-pixel masks are all entries of this map, so that they
cost nothing for each event. Where it is separable (crop, letterbox, stretch), two small tables stand
for it: they stay in the first cache, which a table of a megapixel does not.

What a window of events looks like to the model: the registry of representations, and counts in planes.
A representation is one file with a class and one line in `REPRESENTATIONS`, or a plugin
(`velora.representations`). All of them render to uint8[H, W, 3], the same in training and in the runtime;
none wraps around where many events fall on one pixel.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from velora_edge.datatypes import fit
from velora_edge.errors import ConfigError
from velora_edge.events.kernels._frame_kernels import (
    ADD_EVENT,
    FIND_PLACE,
    FullMap,
    IdentityMap,
    SeparableMap,
)
from velora_edge.extensions import Extension, Registry

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import EventInput
    from velora_edge.datatypes import FitMode


_OFF = -(1 << 30)


class RegistrationMap:
    """Map of each sensor pixel to a pixel of the model's image.

    Attributes:
        source_hw: height and width of the sensor, pixels.
        target_hw: height and width of the model's image, pixels.
        table: what kernels take: `SeparableMap`, `FullMap` or `IdentityMap`.
    """

    def __init__(
        self,
        source_hw: tuple[int, int],
        target_hw: tuple[int, int],
        table: SeparableMap | FullMap | IdentityMap,
    ) -> None:
        self.source_hw, self.target_hw, self.table = source_hw, target_hw, table

    @classmethod
    def from_fit(
        cls, source_hw: tuple[int, int], target_hw: tuple[int, int], mode: FitMode = "crop"
    ) -> RegistrationMap:
        """The map of `velora_edge.datatypes.fit`: a pixel falls where its centre falls."""
        to = fit(source_hw, target_hw, mode)
        columns = _axis(source_hw[1], target_hw[1], to.scale_x, to.offset_x)
        rows = _axis(source_hw[0], target_hw[0], to.scale_y, to.offset_y)
        rows = np.where(rows >= 0, rows * target_hw[1] + 1, _OFF)
        return cls(source_hw, target_hw, SeparableMap(columns.astype(np.int32), rows.astype(np.int32)))

    @classmethod
    def identity(cls, source_hw: tuple[int, int]) -> RegistrationMap:
        """Each of the sensor's pixels falls on itself: for frames of the sensor's own size."""
        return cls(source_hw, source_hw, IdentityMap(source_hw[1]))

    @classmethod
    def from_table(cls, table: NDArray[np.int32], target_hw: tuple[int, int]) -> RegistrationMap:
        """A map given entry by entry.

        Args:
            table: int32[H, W] of the sensor: the flat index of the model's pixel (row * width + column), or
            any
                negative number where events are to be ignored. Copied.
            target_hw: height and width of the model's image.

        Raises:
            ValueError: if an entry lies outside the model's image.
        """
        if table.ndim != 2 or (table.size and int(table.max()) >= target_hw[0] * target_hw[1]):
            raise ValueError(
                f"expected a 2-d table of indices below {target_hw[0] * target_hw[1]}, got {table.shape} "
                f"with entries up to {table.max(initial=-1)}"
            )
        height, width = table.shape
        flat = (np.maximum(table, -1) + 1).astype(np.int32).ravel()
        return cls((height, width), target_hw, FullMap(flat, width))

    def as_table(self) -> NDArray[np.int32]:
        """The whole map, int32[H, W] of the sensor: flat model pixel, or -1. A new array."""
        if isinstance(self.table, SeparableMap):
            cells = self.table.rows[:, None] + self.table.columns[None, :]
        elif isinstance(self.table, IdentityMap):
            cells = 1 + np.arange(self.source_hw[0] * self.source_hw[1]).reshape(self.source_hw)
        else:
            cells = self.table.cells.reshape(self.source_hw)
        return (np.maximum(cells, 0) - 1).astype(np.int32)

    def without(self, mask: NDArray[np.bool_]) -> RegistrationMap:
        """The same map with the pixels of `mask`, bool[H, W] of the sensor, ignored (hot pixels)."""
        table = self.as_table()
        table[mask] = -1
        return RegistrationMap.from_table(table, self.target_hw)


def _axis(source: int, target: int, scale: float, offset: float) -> NDArray[np.int64]:
    """For each of `source` positions, the one of `target` positions on which its centre falls, or `_OFF`."""
    where = np.floor((np.arange(source) + 0.5) * scale + offset).astype(np.int64)
    return np.where((where >= 0) & (where < target), where, _OFF)


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
