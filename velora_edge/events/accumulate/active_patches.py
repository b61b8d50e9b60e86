"""Active patches of event images, as a model that computes these alone is given them.

The same rule as `velora_edge.model.active_patches` has for tensors: a patch is active where a pixel is not of
the colour that an image without events has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.manifest import ActivePatches

PATCHES = "patches"
"""Name of the input of event and difference graphs that takes a list of them, int64[1, K]."""
NOTHING = -1
"""In a list of patches: no patch. It fills lists that must be longer."""


class PatchFinder:
    """Finds the active patches of one event image after the other.

    Single-threaded.

    Args:
        form: of the model.
        image_size: height and width of its images, pixels.
    """

    def __init__(self, form: ActivePatches, image_size: tuple[int, int]) -> None:
        height, width = image_size
        self.patches = form.count
        self._grid = form.grid
        self._size = height // form.grid[0], width // form.grid[1]
        self._blank = np.array(form.blank, np.uint8)

    def find(self, image: NDArray[np.uint8]) -> NDArray[np.bool_]:
        """Which patches of an event image, uint8[H, W, 3], are active, bool[patches]."""
        active = np.zeros(self._grid, np.bool_)
        _find(image, self._blank, self._size[0], self._size[1], active)
        return active.reshape(-1)


@njit(nogil=True, cache=True)
def _find(
    image: NDArray[np.uint8], blank: NDArray[np.uint8], height: int, width: int, active: NDArray[np.bool_]
) -> None:
    for row in range(active.shape[0]):
        for column in range(active.shape[1]):
            active[row, column] = _is_active(image, blank, row * height, column * width, height, width)


@njit(nogil=True, cache=True)
def _is_active(
    image: NDArray[np.uint8], blank: NDArray[np.uint8], top: int, left: int, height: int, width: int
) -> bool:
    for y in range(top, top + height):
        for x in range(left, left + width):
            for channel in range(3):
                if image[y, x, channel] != blank[channel]:
                    return True
    return False


def list_patches(active: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Numbers of the active patches, int64[K], rising, of bool[patches]."""
    return active.nonzero()[0].astype(np.int64, copy=False)


def fill_list(numbers: NDArray[np.int64], length: int) -> NDArray[np.int64]:
    """The list at the length that an engine takes.

    Raises:
        ValueError: if it is longer.
    """
    if len(numbers) > length:
        raise ValueError(f"expected at most {length} patches, got {len(numbers)}")
    filled = np.full(length, NOTHING, np.int64)
    filled[: len(numbers)] = numbers
    return filled


def list_lengths(patches: int) -> tuple[int, ...]:
    """Lengths of lists that engines are built for, rising: about sixths of the patches, the last one all."""
    step = max(8, patches // 6 // 8 * 8)
    return (*range(step, 2 * patches // 3 + 1, step), patches)
