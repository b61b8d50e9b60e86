"""Reader of N-MNIST and N-Caltech101 recordings: `.bin` files of 5 bytes an event, without a header."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ArrayReader, measure_sensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

EVENT_BYTES = 5
OVERFLOW_Y = 240
OVERFLOW_US = 1 << 13
NMNIST_SENSOR = (34, 34)
_EVENTS = 1 << 17


class NMnistReader(ArrayReader):
    """A recording of N-MNIST or N-Caltech101.

    Layout (garrickorchard.com/datasets): x, y, then 24 bits big endian: p, and t in us. An entry
    with y = 240 is no event: it adds 2^13 us to the times after it.

    Args:
        path: the file.
        sensor: width and height; None for N-MNIST's 34x34 where the events fit, or else what they reach.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        if path.stat().st_size < EVENT_BYTES:
            raise RecordingError(
                f"expected events of {EVENT_BYTES} bytes, got {path.stat().st_size} bytes in all",
                path=path,
                remedy="copy it again",
            )
        super().__init__(path, "N-MNIST", sensor or NMNIST_SENSOR)
        if sensor is None and not all(_fits(batch, NMNIST_SENSOR) for batch in self.batches()):
            self.format = "N-Caltech101"
            measure_sensor(self)

    def batches(self) -> Iterator[EventBatch]:
        """The events in file order."""
        overflow_us, size = 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            while data := file.read(EVENT_BYTES * _EVENTS):
                if len(data) % EVENT_BYTES:
                    self.warn(
                        f"the file is cut off: the last {len(data) % EVENT_BYTES} bytes are part of an event"
                    )
                rows = np.frombuffer(data, np.uint8, count=len(data) // EVENT_BYTES * EVENT_BYTES)
                rows = rows.reshape(-1, EVENT_BYTES)
                is_overflow = rows[:, 1] == OVERFLOW_Y
                offsets_us = overflow_us + OVERFLOW_US * np.cumsum(is_overflow, dtype=np.int64)
                overflow_us = int(offsets_us[-1]) if len(offsets_us) else overflow_us
                rows, offsets_us = rows[~is_overflow], offsets_us[~is_overflow]
                self.done = file.tell() / size
                yield EventBatch(
                    _times_us(rows) + offsets_us,
                    rows[:, 0].astype(np.uint16),
                    rows[:, 1].astype(np.uint16),
                    rows[:, 2] >> 7,
                )


def _times_us(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    wide = rows.astype(np.int64)
    return (wide[:, 2] & 127) << 16 | wide[:, 3] << 8 | wide[:, 4]


def _fits(batch: EventBatch, sensor: tuple[int, int]) -> bool:
    return not len(batch) or (int(batch.x.max()) < sensor[0] and int(batch.y.max()) < sensor[1])
