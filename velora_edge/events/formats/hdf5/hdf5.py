"""Reader of HDF5 recordings in columns: DSEC, RVT, M3ED, MVSEC, TUM-VIE, event_utils, N-MNIST subsets."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ColumnReader
from velora_edge.events.formats.columns import check_columns
from velora_edge.events.formats.hdf5 import hdf5_layouts as layouts
from velora_edge.events.formats.hdf5.hdf5_layouts import DAMAGE, ROWS, check_filters, first_line, stored_rows
from velora_edge.events.seek_index import find_row
from velora_edge.limits import check_stored, inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.formats.arrays import ArrayReader, ArrayStream, Columns
    from velora_edge.events.formats.hdf5.hdf5_layouts import Hdf5Events

MAX_ROWS = 1 << 21
_CHUNK_CACHE_BYTES = 16 << 20


def open_hdf5(path: Path, *, sensor: tuple[int, int] | None = None, part: str | None = None) -> ArrayReader:
    """A reader of an event HDF5 file, whatever its layout.

    Args:
        path: the file.
        sensor: width and height, before what the file tells.
        part: the sensor ("right", or the path of its group) or, in a file of many recordings one after
            another, the recording's number.

    Raises:
        RecordingError: if the file is cut off, is compressed in a way that nothing here decodes, or holds no
            events in any layout that is known.
    """
    import h5py

    try:
        file = h5py.File(path, "r", rdcc_nbytes=_CHUNK_CACHE_BYTES)
    except DAMAGE as error:
        raise RecordingError(
            f"the HDF5 file is damaged, or was not closed by who wrote it ({first_line(error)})",
            path=path,
            remedy="copy or record it again",
        ) from error
    try:
        return _reader_of(path, file, sensor, part)
    except RecordingError:
        file.close()
        raise
    except DAMAGE as error:
        file.close()
        raise RecordingError(
            f"the HDF5 file is damaged ({first_line(error)})", path=path, remedy="copy or record it again"
        ) from error


def _reader_of(path: Path, file: Any, sensor: tuple[int, int] | None, part: str | None) -> ArrayReader:
    if inside(file, "CD/events") is None:
        return Hdf5Reader(path, file, sensor=sensor, part=part)
    if part is not None:
        raise RecordingError(f"a Prophesee HDF5 file has no parts, so there is no {part!r} in it", path=path)
    from velora_edge.events.formats.hdf5.hdf5_prophesee import PropheseeHdf5Reader

    return PropheseeHdf5Reader(path, file, sensor=sensor)


class Hdf5Reader(ColumnReader):
    """A recording in columns.

    Times are microseconds or what the file says; t_offset is added where the file has one. Rows that cannot
    be read are passed over and told.

    Args:
        path: the file.
        file: the open `h5py.File`; the reader closes it.
        sensor: width and height, before what the file tells.
        part: see `open_hdf5`.
    """

    def __init__(
        self, path: Path, file: Any, *, sensor: tuple[int, int] | None = None, part: str | None = None
    ) -> None:
        self.path, self.warnings = path, []
        self._file = file
        self._events, recording = _choose_events(path, file, part)
        self._start, self._stop = self._find_range(recording)
        origin, known_sensor = layouts.find_origin(file, self._events.name)
        sensor = sensor or layouts.find_sensor(file, self._events.name)
        if sensor is None and known_sensor is not None and self._fits(known_sensor):
            sensor = known_sensor
        warnings = self.warnings
        super().__init__(
            path,
            f"HDF5 ({origin})" if origin else "HDF5",
            sensor,
            time_unit=layouts.find_time_unit(file, self._events) or self._integer_unit(),
            t_offset_us=layouts.find_t_offset_us(file, self._events.name),
        )
        self.warnings[:0] = warnings

    def columns(self, place: Any = None) -> Iterator[Columns]:
        """The rows, from row number `place` on, in pieces that match the file's chunks."""
        rows = self._rows_at_once()
        lost, reason = 0, ""
        for start in range(self._start if place is None else place, self._stop, rows):
            stop = min(start + rows, self._stop)
            self.done = (stop - self._start) / (self._stop - self._start)
            try:
                yield self._events.read(start, stop)
            except DAMAGE as error:
                lost, reason = lost + stop - start, reason or f"first at {start:,}: {first_line(error)}"
        if lost:
            self.warn(f"{lost:,} events cannot be read and were left out ({reason})")

    def find_place(self, t_us: int) -> int:
        """Number of a row, at the start of a piece."""
        rows = self._rows_at_once()

        def read_times(start: int, stop: int) -> NDArray[np.int64]:
            begin, end = self._start + start * rows, min(self._start + stop * rows, self._stop)
            try:
                return self.times_us(self._events.read_times(begin, end))
            except DAMAGE:
                return np.empty(0, np.int64)

        pieces = -(-(self._stop - self._start) // rows)
        return self._start + rows * find_row(read_times, pieces, t_us, margin=1)

    def stream(self) -> ArrayStream:
        """A new stream over the whole recording.

        Raises:
            RecordingError: if the file holds many recordings, for time restarts at each.
        """
        self._check_is_one()
        return super().stream()

    def stream_from(self, t_us: int) -> ArrayStream:
        """A new stream that begins with the first event at `t_us` or later.

        Raises:
            RecordingError: if the file holds many recordings, for time restarts at each.
        """
        self._check_is_one()
        return super().stream_from(t_us)

    def _check_is_one(self) -> None:
        if self._recordings is not None:
            raise RecordingError(
                f"holds {self._recordings:,} recordings, and time restarts at each",
                path=self.path,
                remedy=f"choose one, from {self.path.name}#0 to {self.path.name}#{self._recordings - 1}",
            )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _find_range(self, recording: int | None) -> tuple[int, int]:
        lengths = self._events.lengths
        n = min(lengths.values())
        if n != max(lengths.values()):
            found = ", ".join(f"{role} {length:,}" for role, length in lengths.items())
            self.warn(f"the columns differ in length ({found}); read as far as the shortest goes")
        stored = min(stored_rows(source) for source in self._events.sources.values())
        if stored < n:
            self.warn(f"the file is incomplete: {n:,} events are announced, {stored:,} are there")
            n = stored
        offsets = layouts.find_recordings(self._file, self._events.name, n)
        self._recordings = None if offsets is None else len(offsets) - 1
        if recording is None:
            if self._recordings is not None:
                self.warn(
                    f"holds {self._recordings:,} recordings one after another, and time restarts at each; "
                    f"{self.path.name}#0 is the first of them"
                )
            return 0, n
        if offsets is None or recording >= len(offsets) - 1:
            raise RecordingError(
                f"there is no recording {recording}; the file holds {self._recordings or 1:,}",
                path=self.path,
                remedy="count from 0",
            )
        self._recordings = None
        return int(offsets[recording]), int(offsets[recording + 1])

    def _integer_unit(self) -> str | None:
        """Microseconds for integers too small for nanoseconds since 1970; None where that is open."""
        dtype = self._events.sources["t"].dtype
        dtype = dtype[self._events.keys["t"]] if dtype.names else dtype
        return "us" if dtype.kind in "iu" and dtype.itemsize <= 4 else None

    def _rows_at_once(self) -> int:
        chunks = [source.chunks[0] for source in self._events.sources.values() if source.chunks]
        largest = max(chunks, default=1)
        return min(max(ROWS // largest, 1) * largest, MAX_ROWS)

    def _fits(self, sensor: tuple[int, int]) -> bool:
        """Whether the sensor that is usual for such files holds the first, middle and last events."""
        middle = (self._start + self._stop) // 2
        for start in (self._start, middle, max(self._stop - 10_000, self._start)):
            _, x, y, _ = self._events.read(start, min(start + 10_000, self._stop))
            if len(x) and (np.max(x) >= sensor[0] or np.max(y) >= sensor[1]):
                return False
        return True


def _choose_events(path: Path, file: Any, part: str | None) -> tuple[Hdf5Events, int | None]:
    """The events that are wanted, and the number of the recording in them."""
    found = layouts.find_events(file)
    if not found:
        raise RecordingError(
            f"expected datasets for t, x, y and p, or CD/events; the file has {_describe(file)}",
            path=path,
            remedy="check that this is an event recording",
        )
    names = [events.name for events in found]
    recording = int(part) if part is not None and part.isdecimal() and len(part) < 10 else None
    if part is None or recording is not None:
        chosen = next((events for events in found if "left" in events.name.split("/")), found[0])
    else:
        wanted = part.strip("/")
        matches = [e for e in found if e.name == wanted or wanted in e.name.split("/")]
        if not matches:
            raise RecordingError(
                f"there is no {part!r} in the file", path=path, remedy=f"choose from {', '.join(names)}"
            )
        chosen = matches[0]
    _check_readable(path, chosen)
    return chosen, recording


def _check_readable(path: Path, events: Hdf5Events) -> None:
    for role, source in events.sources.items():
        check_stored(path, source)
        check_filters(path, source)
        piece = np.empty(0, source.dtype)
        key = events.keys[role]
        check_columns(path, events.name, **{role: piece[key] if isinstance(key, str) else piece})


def _describe(file: Any) -> str:
    names = list(file)[:8]
    return ", ".join(names) if names else "nothing in it"
