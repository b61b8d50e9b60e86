"""What live RGB cameras have in common."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from velora_runtime.cameras.feed import Feed

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy as np
    from numpy.typing import NDArray

ClockOf = Literal["device", "host"]


@dataclass(frozen=True, slots=True)
class Shot:
    """A picture as it came; it is brought to RGB only where somebody wants it.

    Attributes:
        render: gives uint8[H, W, 3], RGB.
        t_us: when it was taken, on the clock that `clock` names; None where nobody knows.
        clock: device: the camera's own; host: this machine's monotonic clock.
    """

    render: Callable[[], NDArray[np.uint8]]
    t_us: int | None
    clock: ClockOf = "device"


class RGBFeed(Feed[Shot], Protocol):
    """A live RGB camera; see `velora_runtime.cameras.feed.Feed`.

    Attributes:
        size: width and height of the pictures, pixels; known once it was opened.
    """

    size: tuple[int, int]
