"""Registration map: for each pixel of the sensor, the pixel of the model's image on which it falls.

Cropping, scaling, lens correction, alignment and hot-pixel masks are all entries of this map, so that they
cost nothing for each event. Where it is separable (crop, letterbox, stretch), two small tables stand
for it: they stay in the first cache, which a table of a megapixel does not.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import fit
from velora_edge.events.kernels._frame_kernels import FullMap, IdentityMap, SeparableMap

if TYPE_CHECKING:
    from numpy.typing import NDArray

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
