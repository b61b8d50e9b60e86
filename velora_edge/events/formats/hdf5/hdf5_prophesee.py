"""Reader of Prophesee's HDF5 recordings: `CD/events` compressed with ECF, decoded here without a plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ArrayReader, measure_sensor
from velora_edge.events.formats.columns import ColumnConverter
from velora_edge.events.formats.hdf5 import hdf5_layouts as layouts
from velora_edge.events.formats.hdf5.ecf import FILTER_ID, decode_ecf
from velora_edge.events.formats.hdf5.hdf5_layouts import (
    DAMAGE,
    ROWS,
    check_filters,
    first_line,
    stored_chunks,
    stored_rows,
)
from velora_edge.events.seek_index import find_row
from velora_edge.limits import check_request, check_stored, inside, is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

_FIELDS = ("t", "x", "y", "p")
# Events that stop this long before the triggers do, and this many mean intervals, look cut off.
_SILENCE_US = 1000
_SILENCE_INTERVALS = 50


class PropheseeHdf5Reader(ArrayReader):
    """A recording written by Metavision or OpenEB.

    Times are those of the file: OpenEB shifts a recording so that it begins near 0, and does not say by how
    much. Chunks are decoded one at a time; a damaged one is left out and told.

    Args:
        path: the file.
        file: the open `h5py.File`; the reader closes it.
        sensor: width and height, before what the file tells.

    Raises:
        RecordingError: if `CD/events` is not what such files have there.
    """

    def __init__(self, path: Path, file: Any, *, sensor: tuple[int, int] | None = None) -> None:
        self._file, self._events = file, inside(file, "CD/events")
        _check_fields(path, self._events, _FIELDS)
        self._is_ecf = _has_ecf(path, self._events)
        self._starts = stored_chunks(self._events) if self._is_ecf else []
        self._stored = 0 if self._is_ecf else stored_rows(self._events)
        super().__init__(path, "HDF5 (Prophesee)", sensor or layouts.find_sensor(file, "CD") or (0, 0))
        if not self.width:
            measure_sensor(self)

    def batches_from(self, t_us: int) -> Iterator[EventBatch]:
        """The events from the chunk that is found for `t_us`."""
        if not self._is_ecf:
            return self.batches()

        def read_times(start: int, stop: int) -> NDArray[np.int64]:
            try:
                return np.concatenate([self._decode_chunk(at).t_us for at in self._starts[start:stop]])
            except DAMAGE:
                return np.empty(0, np.int64)

        first = find_row(read_times, len(self._starts), t_us, margin=8)
        return self._decode_chunks(self._starts[first] if first else 0)

    def batches(self) -> Iterator[EventBatch]:
        """The events chunk by chunk."""
        n, first_us, last_us = 0, None, 0
        for batch in self._decode_chunks() if self._is_ecf else self._read_rows():
            if len(batch):
                n, last_us = n + len(batch), int(batch.t_us[-1])
                first_us = int(batch.t_us[0]) if first_us is None else first_us
            yield batch
        self._tell_what_is_missing(n, first_us, last_us)

    def triggers(self) -> TriggerBatch:
        """All edges in `EXT_TRIGGER/events`."""
        try:
            dataset = inside(self._file, "EXT_TRIGGER/events")
            if dataset is None:
                return TriggerBatch.empty()
            _check_fields(self.path, dataset, ("t", "id", "p"))
            n = stored_rows(dataset)
            check_request(self.path, n * dataset.dtype.itemsize, "the external triggers", dataset.name)
            edges = dataset[:n]
        except DAMAGE as error:
            self.warn(f"the external triggers cannot be read ({first_line(error)})")
            return TriggerBatch.empty()
        return TriggerBatch(
            edges["t"].astype(np.int64), edges["id"].astype(np.uint8), (edges["p"] > 0).astype(np.uint8)
        )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _decode_chunks(self, first: int = 0) -> Iterator[EventBatch]:
        n, chunk_rows = int(self._events.shape[0]), int(self._events.chunks[0])
        missing, damaged, reason = n - first, 0, ""
        for start in (start for start in self._starts if first <= start < n):
            announced = min(chunk_rows, n - start)
            self.done = (start + announced) / n
            missing -= announced
            try:
                batch = self._decode_chunk(start)[:announced]
            except DAMAGE as error:
                damaged, reason = damaged + announced, reason or f"first at {start:,}: {first_line(error)}"
                continue
            missing += announced - len(batch)
            yield batch
        if damaged:
            self.warn(f"{damaged:,} events are damaged and were left out ({reason})")
        if missing:
            self.warn(
                f"the file is incomplete: {n:,} events are announced, {missing:,} of them are not there"
            )

    def _decode_chunk(self, start: int) -> EventBatch:
        skipped_filters, chunk = self._events.id.read_direct_chunk((start,))
        if not skipped_filters & 1:
            return decode_ecf(chunk)
        rows = np.frombuffer(
            chunk[: len(chunk) // self._events.dtype.itemsize * self._events.dtype.itemsize],
            self._events.dtype,
        )
        return ColumnConverter().convert(*(rows[name] for name in _FIELDS))

    def _read_rows(self) -> Iterator[EventBatch]:
        """The rows of a file that was written again by another tool, without ECF."""
        check_filters(self.path, self._events)
        converter = ColumnConverter()
        n, stored, lost = int(self._events.shape[0]), self._stored, 0
        for start in range(0, stored, ROWS):
            stop = min(start + ROWS, stored)
            self.done = stop / stored
            try:
                rows = self._events[start:stop]
            except DAMAGE:
                lost += stop - start
                continue
            yield converter.convert(*(rows[name] for name in _FIELDS))
        if lost:
            self.warn(f"{lost:,} events cannot be read and were left out")
        if stored < n:
            self.warn(
                f"the file is incomplete: {n:,} events are announced, {n - stored:,} of them are not there"
            )
        for sentence in converter.warnings():
            self.warn(sentence)

    def _tell_what_is_missing(self, n: int, first_us: int | None, last_us: int) -> None:
        indexed = _last_index(self._file)
        if indexed > int(self._events.shape[0]):
            self.warn(
                f"the recording is incomplete: its index goes to event {indexed:,}, and {n:,} are there"
            )
        triggers = self.triggers()
        if first_us is None or not len(triggers):
            return
        silence_us = int(triggers.t_us[-1]) - last_us
        if silence_us > max(_SILENCE_US, _SILENCE_INTERVALS * (last_us - first_us) / n):
            self.warn(
                f"the recording seems incomplete: {n:,} events are there, and they end {silence_us:,} us "
                "before the external triggers do; if there is a .raw file of it, use that"
            )


def _check_fields(path: Path, dataset: Any, wanted: tuple[str, ...]) -> None:
    import h5py

    names = dataset.dtype.names if isinstance(dataset, h5py.Dataset) and dataset.ndim == 1 else None
    if names is None or not set(wanted) <= set(names):
        found = getattr(dataset, "dtype", "a group")
        raise RecordingError(
            f"expected records with the fields {', '.join(wanted)}, got {found}",
            path=path,
            place=dataset.name,
            remedy="check how the file was written",
        )
    check_stored(path, dataset)


def _has_ecf(path: Path, dataset: Any) -> bool:
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if codes == [FILTER_ID]:
        return True
    check_filters(path, dataset)
    return False


def _last_index(file: Any) -> int:
    """The number of the last event that the index knows, 0 where there is no index."""
    try:
        dataset = inside(file, "CD/indexes")
        return int(dataset[-1]["id"]) if dataset.shape[0] and is_inside(dataset) else 0
    except (*DAMAGE, IndexError):
        return 0
