"""Writer of HDF5 in the layout of the DSEC data set."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.events.writers.base import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.datatypes import EventBatch

_CHUNK = 1 << 16
_COLUMNS = {"x": np.uint16, "y": np.uint16, "p": np.uint8, "t": np.uint32}
_INDEX_BLOCK_MS = 1 << 20


class HDF5Writer(EventWriter):
    """`events/{x,y,p,t}`, `t_offset`, `ms_to_idx`, compressed (Blosc: zstd, shuffled).

    `t` counts from `t_offset`, the first event's time, as DSEC's files do; it is uint32, and int64 in
    recordings of more than 71 minutes. `ms_to_idx[k]` is the first event that is not before millisecond k.
    The sensor, for which DSEC has no place, is in `events/width` and `events/height`, as in RVT's files.
    """

    format = "HDF5"
    is_ordered = True

    def _open(self, path: Path) -> None:
        import h5py
        import hdf5plugin

        self._filter = dict(hdf5plugin.Blosc(cname="zstd", clevel=3, shuffle=hdf5plugin.Blosc.SHUFFLE))
        self._file = h5py.File(path, "w")
        self._group = self._file.create_group("events")
        self._group["width"], self._group["height"] = self.width, self.height
        for name, kind in _COLUMNS.items():
            self._add_column(self._group, name, kind)
        self._add_column(self._file, "ms_to_idx", np.uint64)
        self._t_offset: int | None = None

    def _check_times(self, first_us: int, last_us: int) -> None:
        """Any int64 will do."""

    def _write(self, batch: EventBatch) -> None:
        if self._t_offset is None:
            self._t_offset = int(batch.t_us[0])
        t = batch.t_us - self._t_offset
        if t[-1] > np.iinfo(np.uint32).max and self._group["t"].dtype == np.uint32:
            self._widen_times()
        for name, values in (("x", batch.x), ("y", batch.y), ("p", batch.p), ("t", t)):
            _append(self._group[name], values)
        index = self._file["ms_to_idx"]
        end_ms = int(t[-1]) // 1000 + 1
        for start_ms in range(len(index), end_ms, _INDEX_BLOCK_MS):
            ms = np.arange(start_ms, min(start_ms + _INDEX_BLOCK_MS, end_ms))
            _append(index, np.searchsorted(t, ms * 1000) + self.events_written)

    def _finish(self) -> None:
        self._file["t_offset"] = np.int64(self._t_offset or 0)
        self._file.close()

    def _discard(self) -> None:
        try:
            self._file.close()
        except (OSError, RuntimeError):  # what could not be flushed is thrown away anyway
            self._file.id.close()

    def _add_column(self, group: Any, name: str, kind: Any) -> None:
        group.create_dataset(name, (0,), kind, maxshape=(None,), chunks=(_CHUNK,), **self._filter)

    def _widen_times(self) -> None:
        narrow = self._group["t"]
        self._add_column(self._group, "t_wide", np.int64)
        for start in range(0, len(narrow), _CHUNK * 16):
            _append(self._group["t_wide"], narrow[start : start + _CHUNK * 16])
        del self._group["t"]
        self._group.move("t_wide", "t")


def _append(column: Any, values: Any) -> None:
    n = len(column)
    column.resize((n + len(values),))
    column[n:] = values
