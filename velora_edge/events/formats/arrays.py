"""Readers of files that hold events as arrays, or as a column of numbers for each of t, x, y and p.

A format implements `ArrayReader.batches`, which gives the file's events as they are; checks, windows, frames
and warnings are done here.

Order in time: events are taken in file order, and a window ends at the first event that is not before its
end. An event that is earlier than one before it (some cameras and converters write such) falls in the window
that is being filled when it comes, so nothing is lost and nothing waits; how many there were is told in the
warnings.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events.base import EventReader
from velora_edge.events.chunk_stream import BatchCursor, ChunkStream
from velora_edge.events.formats.columns import (
    ColumnConverter,
    TimeUnwrapper,
    guess_time_unit,
    usable_times_us,
)
from velora_edge.events.kernels import _frame_kernels as kernels
from velora_edge.events.seek_index import PlaceIndex

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.base import EventTap, FrameAccumulator
    from velora_edge.events.formats.columns import Column
    from velora_edge.events.seek_index import Place

    Columns = tuple[Column, Column, Column, Column]


_LONG_AGO = np.iinfo(np.int64).min
_FAR_AHEAD = np.iinfo(np.int64).max


class ArrayReader(EventReader):
    """A recording whose format gives arrays.

    A subclass implements `batches`, and `triggers` where the format has any.

    Args:
        path: the file.
        format: name of its format.
        sensor: width and height, pixels.
    """

    def __init__(self, path: Path, format: str, sensor: tuple[int, int]) -> None:  # noqa: A002
        self.path, self.format = path, format
        self.width, self.height = sensor
        self.warnings: list[str] = []

    @abstractmethod
    def batches(self) -> Iterator[EventBatch]:
        """The file's events from its start, in file order, in batches of bounded size, unchecked.

        Types as `EventBatch` has them; p is 0 or 1.
        """

    def batches_from(self, t_us: int) -> Iterator[EventBatch]:
        """As `batches`, perhaps without events that are before `t_us` and come before all that are not.

        A format that need not read what it leaves out overrides this.
        """
        return self.batches()

    def triggers(self) -> TriggerBatch:
        """Return no edges; a format that has them overrides this."""
        return TriggerBatch.empty()

    def warn(self, sentence: str) -> None:
        """Note what is wrong with the file, once, however often it is read."""
        if sentence not in self.warnings:
            self.warnings.append(sentence)

    def __iter__(self) -> Iterator[EventBatch]:
        return self._checked(self.batches())

    def stream(self) -> ArrayStream:
        """A new stream over the whole recording."""
        return ArrayStream(iter(self), self.width, self.height, self.triggers())

    def stream_from(self, t_us: int) -> ArrayStream:
        """A new stream that begins with the first event at `t_us` or later."""
        checked = self._checked(self.batches_from(t_us))
        stream = ArrayStream(checked, self.width, self.height, self.triggers())
        stream.skip_until(t_us)
        stream.take_triggers()
        return stream

    def _checked(self, batches: Iterator[EventBatch]) -> Iterator[EventBatch]:
        checked = CheckedBatches(batches, self.width, self.height)
        yield from checked
        for sentence in checked.warnings():
            self.warn(sentence)


class CheckedBatches:
    """Batches without the events that lie outside the sensor or have no time; empty batches are left out.

    Iterate once; `warnings` is complete after that.
    """

    def __init__(self, batches: Iterator[EventBatch], width: int, height: int) -> None:
        self._batches, self._width, self._height = batches, width, height
        self._seen = np.array([_LONG_AGO, 0, 0, 0, 0], np.int64)

    def __iter__(self) -> Iterator[EventBatch]:
        for batch in self._batches:
            unusable = kernels.inspect_events(
                batch.t_us, batch.x, batch.y, self._width, self._height, self._seen
            )
            usable = batch[self._are_usable(batch)] if unusable else batch
            if len(usable):
                yield usable

    def _are_usable(self, batch: EventBatch) -> NDArray[np.bool_]:
        limit = kernels.FARTHEST_US
        return (
            (batch.x < self._width)
            & (batch.y < self._height)
            & (batch.t_us >= -limit)
            & (batch.t_us <= limit)
        )

    def warnings(self) -> list[str]:
        """Warnings so far, one sentence each."""
        outside, late = int(self._seen[kernels.OUTSIDE]), int(self._seen[kernels.LATE])
        sentences = []
        if outside:
            sentences.append(
                f"{outside:,} events lie outside the sensor of {self._width}x{self._height} and were dropped"
            )
        if timeless := int(self._seen[kernels.TIMELESS]):
            sentences.append(f"{timeless:,} events have a time that no clock shows and were dropped")
        if late:
            latest = int(self._seen[kernels.LATEST_US])
            sentences.append(f"{late:,} events are earlier than one before them, by up to {latest:,} us")
        return sentences


class ArrayStream(ChunkStream):
    """A stream over batches of events.

    Single-threaded: whoever packs frames from it.

    Args:
        batches: events inside the sensor (`CheckedBatches`), in the order in which they are to be taken.
        width: of the sensor, pixels.
        height: of the sensor, pixels.
        triggers: all edges of the recording, in time order.
    """

    def __init__(
        self, batches: Iterator[EventBatch], width: int, height: int, triggers: TriggerBatch | None = None
    ) -> None:
        self._batch_cursor = BatchCursor()
        super().__init__(self._batch_cursor)
        self.width, self.height = width, height
        self._batches = batches
        self._triggers = TriggerBatch.empty() if triggers is None else triggers
        self._triggers_taken = 0
        self._reached_us = _LONG_AGO

    def listen(self, tap: EventTap) -> None:
        """Let `tap` have all that was not walked over yet, and what is taken in from now on."""
        super().listen(tap)
        if not self._cursor.is_used_up:
            tap.take_batch(self._batch_cursor.rest)

    @property
    def t_next_us(self) -> int | None:
        """Time of the next event, or None at the end of the stream."""
        if self._load():
            return self._batch_cursor.t_next_us
        self._tell_edges()
        return None

    def skip_until(self, t_us: int) -> int:
        """Pass over the events before `t_us`; return how many they were."""
        self._reached_us = max(self._reached_us, t_us)
        return super().skip_until(t_us)

    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` to the frame; return how many were walked over."""
        self._reached_us = max(self._reached_us, t1_us)
        return super().accumulate_until(t1_us, frame)

    def read_batch(self, most: int, t1_us: int = _FAR_AHEAD) -> EventBatch:
        """The next events before `t1_us`, `most` at most; none only where there are no more before it."""
        self._reached_us = max(self._reached_us, t1_us)
        return super().read_batch(most, t1_us)

    def _load(self) -> bool:
        while self._cursor.is_used_up:
            batch = next(self._batches, None)
            if batch is None:
                return False
            self._batch_cursor.load(batch, self._tap)
        return True

    def _take_edges(self) -> TriggerBatch:
        """Return the edges up to where the stream was read; all, at its end."""
        start, edges = self._triggers_taken, self._triggers
        end = int(np.searchsorted(edges.t_us, self._reached_us)) if self._load() else len(edges)
        self._triggers_taken = end = max(start, end)
        return TriggerBatch(edges.t_us[start:end], edges.id[start:end], edges.p[start:end])

    def close(self) -> None:
        """Close the batches that were not taken."""
        self._batches = iter(())
        self._batch_cursor.load(EventBatch.empty(), None)


PAIRS = 1 << 17
"""Pairs of words that are read at once."""


class PairReader(ArrayReader):
    """A recording of pairs of 32-bit words: a time in us, which wraps after 71.6 minutes, and what it is of.

    A subclass implements `decode`.

    Args:
        path: the file.
        format: name of its format.
        sensor: width and height, pixels.
        start: byte of the first pair.
    """

    pair_type: ClassVar[str]
    """NumPy's name of the words' type, with their byte order."""
    time_column: ClassVar[int]
    """Which word of a pair is the time, 0 or 1."""
    kind: ClassVar[str]
    """Of its index."""

    def __init__(self, path: Path, format: str, sensor: tuple[int, int], start: int) -> None:  # noqa: A002
        super().__init__(path, format, sensor)
        self._start = start

    @abstractmethod
    def decode(self, place: Place) -> Iterator[EventBatch]:
        """The events from a place of `read_pairs` on, in file order."""

    @property
    def first(self) -> Place:
        """The place of the first pair: its byte, and an unwrapper's memory before it."""
        return self._start, *TimeUnwrapper().memory

    def batches(self) -> Iterator[EventBatch]:
        """The events in file order."""
        return self.decode(self.first)

    def batches_from(self, t_us: int) -> Iterator[EventBatch]:
        """The events from the place that is found for `t_us`."""
        index = PlaceIndex(self.path, f"{self.kind} {self._start}", self.first, self._walk)
        return self.decode(index.find(t_us))

    def read_pairs(self, place: Place) -> Iterator[tuple[NDArray[np.int64], NDArray[np.uint32], Place]]:
        """Times in us, with wraps undone, the words beside them, and the place after them."""
        at, *memory = place
        unwrap = TimeUnwrapper(*memory)
        size = self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(at)
            while data := file.read(8 * PAIRS):
                if len(data) % 8:
                    self.warn(f"the file is cut off: the last {len(data) % 8} bytes are half an event")
                pairs = np.frombuffer(data, self.pair_type, count=len(data) // 8 * 2).reshape(-1, 2)
                if len(pairs):
                    at += pairs.nbytes
                    t_us = unwrap(pairs[:, self.time_column].astype(np.int64))
                    self.done = at / size
                    yield t_us, pairs[:, 1 - self.time_column].astype(np.uint32), (at, *unwrap.memory)

    def _walk(self, place: Place) -> Iterator[tuple[int | None, Place]]:
        for t_us, _, after in self.read_pairs(place):
            yield int(t_us.max()), after


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
        """Find where events at `t_us` and later begin, in formats that can be read from anywhere."""
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
