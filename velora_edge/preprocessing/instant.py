"""A moment at which a pair is to be made."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.preprocessing.sync import Placed


class Shrunk:
    """A picture at the model's size, or one that is still on its way there.

    Args:
        image: uint8[H, W, 3] for the picture; means nothing before `wait` has returned.
    """

    def __init__(self, image: NDArray[np.uint8]) -> None:
        self.image = image
        self._is_there = threading.Event()

    def begin(self) -> None:
        """It is on its way, from now on."""
        self._is_there.clear()

    def finish(self) -> None:
        """It is there, or never will be: then an error ends the run."""
        self._is_there.set()

    def exchange(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Wait for the picture and give it away, for an array to be used again."""
        self._is_there.wait()
        mine, self.image = self.image, image
        return mine


@dataclass(frozen=True, slots=True)
class Instant:
    """When a pair is to be made.

    Attributes:
        t_us: the pair's time, event clock.
        placed: its RGB frame, or None.
        ready_us: when its data was there, on the pipeline's clock.
        shrunk: the frame at the model's size, soon; None where nobody makes it.
    """

    t_us: int
    placed: Placed | None
    ready_us: int
    shrunk: Shrunk | None = None
