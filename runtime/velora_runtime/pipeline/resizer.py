"""Pictures to the model's size, in the RGB camera's thread while the packing thread walks over the events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.preprocessing.instant import Shrunk
from velora_edge.vision.resize import Resizer
from velora_runtime.buffers.free_list import FreeList

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.bundle import Manifest


class FrameResizer:
    """Makes them. `take` and `shrink`: the RGB camera's thread; `give`: any.

    Args:
        manifest: the model's: image size and fit.
    """

    def __init__(self, manifest: Manifest) -> None:
        self._hw, self._mode = manifest.image_size, manifest.rgb.fit
        self._free = FreeList(lambda: Shrunk(np.zeros((*self._hw, 3), np.uint8)))
        self._resizer: Resizer | None = None

    def take(self) -> Shrunk:
        """One to be shrunk to."""
        shrunk = self._free.take()
        shrunk.begin()
        return shrunk

    def shrink(self, picture: NDArray[np.uint8], shrunk: Shrunk) -> None:
        """Bring a picture, uint8[H, W, 3] of any size, to the model's."""
        try:
            source_hw = (picture.shape[0], picture.shape[1])
            if self._resizer is None or self._resizer.source_hw != source_hw:
                self._resizer = Resizer(source_hw, self._hw, self._mode)
            self._resizer.resize_into(picture, shrunk.image)
        finally:
            shrunk.finish()

    def give(self, shrunk: Shrunk) -> None:
        """Take one back that is there, and that nobody looks at."""
        self._free.give(shrunk)
