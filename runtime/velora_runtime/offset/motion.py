"""How much moves where and when: in pictures, and in events, over a coarse grid of the view."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch, RGBFrame
    from velora_edge.events.base import EventReader

GRID = 4
"""Cells across and down: fine enough to tell places apart, coarse enough for views that differ a little."""
CELLS = GRID * GRID
BIN_US = 500
LONGEST_PX = 160
"""Pictures are made smaller before they are compared: sensor noise and codecs' blocks average out."""
QUIET = 3.0
"""Differences of grey levels (of 255) up to this are noise."""


@dataclass(frozen=True, slots=True)
class PictureMotion:
    """What moves in the pictures of a video.

    Attributes:
        name: of the video, for messages.
        t_us: int64[K], times of the pictures, increasing.
        energy: float32[K, CELLS], motion at the instant of each picture, 0 for none.
    """

    name: str
    t_us: NDArray[np.int64]
    energy: NDArray[np.float32]

    @property
    def period_us(self) -> float:
        """From one picture to the next, typically."""
        return float(np.median(np.diff(self.t_us)))


@dataclass(frozen=True, slots=True)
class EventMotion:
    """Where events were at which time.

    Attributes:
        name: of the recording, for messages.
        begin_us: start of the first bin.
        until: int64[B + 1, CELLS], events of each cell before the start of each bin of `BIN_US`.
    """

    name: str
    begin_us: int
    until: NDArray[np.int64]

    @property
    def end_us(self) -> int:
        """End of the last bin."""
        return self.begin_us + BIN_US * (len(self.until) - 1)

    def count(self, t0_us: NDArray[Any], t1_us: NDArray[Any]) -> NDArray[np.float32]:
        """Events in each [t0, t1), to half a bin: float32[K, CELLS] for times [K] within the bins."""
        first, last = (np.rint((t - self.begin_us) / BIN_US).astype(np.int64) for t in (t0_us, t1_us))
        return (self.until[last] - self.until[first]).astype(np.float32)


def read_picture_motion(name: str, frames: Iterable[RGBFrame]) -> PictureMotion:
    """Motion energy by the differences of three pictures in a row.

    What moves is where a picture differs both from the one before and the one after; that is of the picture's
    own instant, however fast it moves.

    Args:
        name: of the video.
        frames: in the order of their times; read once, not kept.
    """
    last_three: deque[tuple[int, NDArray[np.float32]]] = deque(maxlen=3)
    times: list[int] = []
    energies: list[NDArray[np.float32]] = []
    for frame in frames:
        last_three.append((frame.t_us, _make_small_grey(frame.image)))
        if len(last_three) == 3:
            (_, before), (t_us, now), (_, after) = last_three
            moved = np.minimum(np.abs(now - before), np.abs(after - now))
            times.append(t_us)
            energies.append(_average_cells(np.maximum(moved - QUIET, 0)))
    energy = np.array(energies, np.float32).reshape(-1, CELLS)
    return PictureMotion(name, np.array(times, np.int64), energy)


def read_event_motion(events: EventReader, t0_us: int, t1_us: int) -> EventMotion:
    """Count the events of [t0, t1) by cell and bin.

    Raises:
        RecordingError: if there are none.
    """
    bins = max(1, -((t0_us - t1_us) // BIN_US))
    counts = np.zeros(bins * CELLS, np.int64)
    first_us, last_us = t1_us, t0_us
    for batch in events.between(t0_us, t0_us + bins * BIN_US):
        place = (batch.t_us - t0_us) // BIN_US * CELLS + _cells(batch, events.width, events.height)
        counts += np.bincount(place, minlength=len(counts))
        first_us, last_us = min(first_us, int(batch.t_us.min())), max(last_us, int(batch.t_us.max()))
    if last_us < first_us:
        raise RecordingError(
            f"holds no events from {t0_us / 1e6:.1f} s to {t1_us / 1e6:.1f} s",
            path=events.path,
            remedy="choose another part of the video with --start",
        )
    # Outside its events a recording says nothing; silence there is not to be taken for stillness.
    first, last = (first_us - t0_us) // BIN_US, (last_us - t0_us) // BIN_US + 1
    kept = counts.reshape(bins, CELLS)[first:last]
    until = np.concatenate([np.zeros((1, CELLS), np.int64), np.cumsum(kept, axis=0)])
    return EventMotion(str(events.path), t0_us + first * BIN_US, until)


def _make_small_grey(image: NDArray[np.uint8]) -> NDArray[np.float32]:
    height, width = image.shape[:2]
    scale = min(1.0, LONGEST_PX / max(height, width))
    size = max(GRID, round(width * scale)), max(GRID, round(height * scale))
    grey: Any = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    small: Any = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return small.astype(np.float32)


def _average_cells(moved: NDArray[np.float32]) -> NDArray[np.float32]:
    cells: Any = cv2.resize(moved, (GRID, GRID), interpolation=cv2.INTER_AREA)
    return cells.reshape(-1)


def _cells(batch: EventBatch, width: int, height: int) -> NDArray[np.int64]:
    column = batch.x.astype(np.int64) * GRID // width
    return batch.y.astype(np.int64) * GRID // height * GRID + column
