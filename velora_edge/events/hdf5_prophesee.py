"""Prophesee's HDF5 recordings: `CD/events` compressed with ECF, decoded here without any plugin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events import hdf5_layouts as layouts
from velora_edge.events.arrays import ArrayReader
from velora_edge.events.column_reader import measure_sensor
from velora_edge.events.columns import ColumnConverter
from velora_edge.events.ecf import FILTER_ID, decode_ecf
from velora_edge.events.hdf5 import ROWS, check_filters

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        self._file, self._events = file, file["CD/events"]
        _check_fields(path, self._events, _FIELDS)
        self._is_ecf = _has_ecf(path, self._events)
        super().__init__(path, "HDF5 (Prophesee)", sensor or layouts.find_sensor(file, "CD") or (0, 0))
        if not self.width:
            measure_sensor(self)

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
        dataset = self._file.get("EXT_TRIGGER/events")
        if dataset is None:
            return TriggerBatch.empty()
        _check_fields(self.path, dataset, ("t", "id", "p"))
        try:
            edges = dataset[:]
        except OSError as error:
            self.warn(f"the external triggers cannot be read ({error})")
            return TriggerBatch.empty()
        return TriggerBatch(
            edges["t"].astype(np.int64), edges["id"].astype(np.uint8), (edges["p"] > 0).astype(np.uint8)
        )

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _decode_chunks(self) -> Iterator[EventBatch]:
        n, chunk_rows = int(self._events.shape[0]), int(self._events.chunks[0])
        for start in range(0, n, chunk_rows):
            announced = min(chunk_rows, n - start)
            try:
                batch = self._decode_chunk(start)
            except (OSError, RuntimeError, ValueError) as error:
                self.warn(
                    f"{announced:,} events from number {start:,} are damaged and were left out ({error})"
                )
                continue
            if len(batch) < announced:
                self.warn(
                    f"{announced - len(batch):,} events are missing before number {start + announced:,}"
                )
            yield batch[:announced]

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
        for start in range(0, int(self._events.shape[0]), ROWS):
            try:
                rows = self._events[start : start + ROWS]
            except OSError as error:
                self.warn(f"the {ROWS:,} events from number {start:,} cannot be read ({error})")
                continue
            yield converter.convert(*(rows[name] for name in _FIELDS))
        for sentence in converter.warnings():
            self.warn(sentence)

    def _tell_what_is_missing(self, n: int, first_us: int | None, last_us: int) -> None:
        indexed = _last_index(self._file.get("CD/indexes"))
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


def _has_ecf(path: Path, dataset: Any) -> bool:
    plist = dataset.id.get_create_plist()
    codes = [plist.get_filter(i)[0] for i in range(plist.get_nfilters())]
    if codes == [FILTER_ID]:
        return True
    check_filters(path, dataset)
    return False


def _last_index(dataset: Any) -> int:
    """The number of the last event that the index knows, 0 where there is no index."""
    names = getattr(getattr(dataset, "dtype", None), "names", None)
    if not names or "id" not in names or dataset.ndim != 1 or not dataset.shape[0]:
        return 0
    try:
        return int(dataset[-1]["id"])
    except OSError:
        return 0
