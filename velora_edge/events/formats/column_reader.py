"""Readers whose files hold one column of numbers for each of t, x, y and p: what all of these share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ArrayReader
from velora_edge.events.formats.columns import ColumnConverter, guess_time_unit, usable_times_us

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.datatypes import EventBatch
    from velora_edge.events.formats.columns import Column

    Columns = tuple[Column, Column, Column, Column]

TIME_UNIT_NAMES = {"s": "seconds", "ms": "milliseconds", "us": "microseconds", "ns": "nanoseconds"}


class ColumnReader(ArrayReader):
    """A recording in columns; a subclass implements `columns` and sets itself up before it calls `__init__`.

    Args:
        path: the file.
        format: name of its format.
        sensor: width and height; None to take what the events reach, which reads the whole file once.
        time_unit: a key of `TIME_UNITS`; None to tell by the values, which is noted in the warnings where
            they are not microseconds.
        t_offset_us: added to every time.
    """

    def __init__(
        self,
        path: Path,
        format: str,  # noqa: A002
        sensor: tuple[int, int] | None,
        *,
        time_unit: str | None = None,
        t_offset_us: int = 0,
    ) -> None:
        super().__init__(path, format, sensor or (0, 0))
        self._t_offset_us = t_offset_us
        self._time_unit = time_unit or self._guess_time_unit()
        if sensor is None:
            measure_sensor(self)

    @abstractmethod
    def columns(self, place: Any = None) -> Iterator[Columns]:
        """The file's t, x, y and p, of one length, of any number type; bounded pieces.

        Args:
            place: where to begin, as `find_place` gave it; None for the file's start.
        """

    def find_place(self, t_us: int) -> Any:
        """Where to begin for the events at `t_us` and later; formats that can be read anywhere say it."""
        return None

    def times_us(self, t: Column) -> NDArray[np.int64]:
        """The times of a column of the file in microseconds, without those that are none."""
        return usable_times_us(t, self._time_unit, self._t_offset_us)

    def batches(self) -> Iterator[EventBatch]:
        """The file's events from its start, in file order, outside the sensor or not."""
        return self._convert(self.columns())

    def batches_from(self, t_us: int) -> Iterator[EventBatch]:
        """The file's events from the place that is found for `t_us`."""
        return self._convert(self.columns(self.find_place(t_us)))

    def _convert(self, columns: Iterator[Columns]) -> Iterator[EventBatch]:
        converter = ColumnConverter(time_unit=self._time_unit, t_offset_us=self._t_offset_us)
        for t, x, y, p in columns:
            yield converter.convert(t, x, y, p)
        for sentence in converter.warnings():
            self.warn(sentence)

    def _guess_time_unit(self) -> str:
        first = next((t for t, _, _, _ in self.columns() if len(t)), np.empty(0, np.int64))
        unit = guess_time_unit(first)
        if unit != "us":
            self.warn(
                f"the file does not tell the unit of time; taken as {TIME_UNIT_NAMES[unit]} by its values"
            )
        return unit


def measure_sensor(reader: ArrayReader) -> None:
    """Give a reader the smallest sensor that holds all its events, and a warning that says so.

    Raises:
        RecordingError: if there are no events.
    """
    width = height = 0
    for batch in reader.batches():
        if len(batch):
            width = max(width, int(batch.x.max()) + 1)
            height = max(height, int(batch.y.max()) + 1)
    if not width:
        raise RecordingError(
            "neither tells the sensor's size nor holds an event to tell it from",
            path=reader.path,
            remedy="pass the sensor's size, as in --sensor 640x480",
        )
    reader.width, reader.height = width, height
    reader.warn(f"the sensor's size is not in the file; its events reach {width}x{height}, which is taken")
