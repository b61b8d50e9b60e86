"""Interface of RGB sources."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.datatypes import RGBFrame

NONE = "none"
"""The source that says: there is no such camera."""


class RGBSource(ABC):
    """An RGB camera, or a recording of one.

    Single-threaded: whoever iterates.

    Attributes:
        name: what the user called it.
        height: of its pictures, pixels.
        width: of its pictures, pixels.
        is_on_event_clock: its times are those of the event camera's clock as they stand; otherwise they
            count from the start of the recording.
        warnings: what was wrong with it, one sentence each; complete once it was read to its end.
        is_live: its frames come when they are taken; nobody can hold it back.
        overrun: frames of a live camera that came while nobody took those before, and were dropped.
    """

    is_live: bool = False
    overrun: int = 0

    name: str
    height: int
    width: int
    is_on_event_clock: bool
    warnings: list[str]

    @abstractmethod
    def __iter__(self) -> Iterator[RGBFrame]:
        """Yield frames from the beginning, with increasing times on its own clock."""

    @abstractmethod
    def times_us(self) -> NDArray[np.int64]:
        """Times of all frames, int64[N], on its own clock, without decoding them."""

    def close(self) -> None:  # noqa: B027  (most sources hold nothing between iterations)
        """Close files and devices."""
