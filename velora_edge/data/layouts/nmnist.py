"""N-MNIST in one HDF5 file: events of all recordings one after the other, with offsets and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.data.clips.clips import ClipSource, Item, Modality, Pairs, count_windows, pack_windows
from velora_edge.data.clips.store import Hdf5File
from velora_edge.datatypes import EventBatch
from velora_edge.errors import DatasetError
from velora_edge.events.accumulate.representations import RegistrationMap

if TYPE_CHECKING:
    from pathlib import Path

    import h5py
    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec

NAMES = ("events/t", "events/x", "events/y", "events/p", "offsets", "label")
SENSOR = (34, 34)


def is_nmnist(file: h5py.File) -> bool:
    """Whether an HDF5 file has this layout."""
    return all(name in file for name in NAMES)


class NmnistFile(ClipSource):
    """Recordings of a saccading event camera, cut into windows one after the other; there is no RGB.

    Layout: `events/{t,x,y,p}` of all recordings, times in microseconds that start anew with each; `offsets`
    int64[N + 1], where each begins; `label` [N]; `sample_id` [N], where it is there; attribute `sensor`.

    Args:
        path: the file.
        spec: the form of the clips; its window is the length of each pair's window.

    Raises:
        DatasetError: if the file lacks a part, or if its parts do not fit together.
    """

    kind = "nmnist"
    cuts_windows = True
    cameras: tuple[Modality, ...] = ("event",)

    def __init__(self, path: Path, spec: ClipSpec) -> None:
        self.path, self.spec = path, spec
        self._file = Hdf5File(path)
        file = self._file()
        missing = [f"{name} is missing" for name in NAMES if name not in file]
        if missing:
            raise DatasetError(missing, path=path, remedy="give a file of the N-MNIST layout")
        self.sensor = tuple(int(side) for side in file.attrs.get("sensor", SENSOR))
        self._offsets = file["offsets"][:].astype(np.int64)
        targets = file["label"][:].astype(np.int64)
        self._check(file, targets)
        ids = file["sample_id"][:] if "sample_id" in file else np.arange(len(targets))
        self.labels = tuple(str(k) for k in range(max(10, int(targets.max(initial=0)) + 1)))
        self.items = [Item(f"{int(i):05}", int(k)) for i, k in zip(ids, targets, strict=True)]
        self._map = RegistrationMap.from_fit(
            (self.sensor[1], self.sensor[0]), spec.image_size, spec.event.fit
        )

    def _check(self, file: h5py.File, targets: NDArray[np.int64]) -> None:
        offsets, events = self._offsets, len(file["events/t"])
        found = []
        if len(offsets) != len(targets) + 1:
            found.append(
                f"offsets: expected {len(targets) + 1} for {len(targets)} labels, got {len(offsets)}"
            )
        elif len(offsets) and (offsets[0] != 0 or offsets[-1] != events or (np.diff(offsets) < 0).any()):
            found.append(f"offsets: expected to rise from 0 to {events}, the number of events")
        lengths = {name: len(file[name]) for name in NAMES[:4]}
        if len(set(lengths.values())) > 1:
            found.append("events: lengths differ: " + ", ".join(f"{k} {v}" for k, v in lengths.items()))
        if not len(targets):
            found.append("label: there are no recordings")
        if found:
            raise DatasetError(found, path=self.path, remedy="copy or make the file again")

    def events(self, index: int) -> EventBatch:
        """All events of a recording."""
        file, span = self._file(), slice(self._offsets[index], self._offsets[index + 1])
        t, x, y, p = (file[f"events/{name}"][span] for name in "txyp")
        return EventBatch(t.astype(np.int64), x.astype(np.uint16), y.astype(np.uint16), p.astype(np.uint8))

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        times = self._file()["events/t"]
        first, last = self._offsets[index], self._offsets[index + 1] - 1
        if last < first:
            raise DatasetError([f"{self.items[index].name}: no events"], path=self.path)
        return count_windows(int(times[first]), int(times[last]), self.spec.event.window_us)

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`."""
        events = self.events(index)
        start = int(events.t_us[0]) + which * self.spec.event.window_us
        windows = [(int(t), int(t) + self.spec.event.window_us) for t in start]
        return Pairs(None, pack_windows(events, windows, self._map, self.spec.event))

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """See `ClipSource.problems`."""
        name = self.items[index].name
        if self._offsets[index] == self._offsets[index + 1]:
            return [f"{name}: no events"]
        if not deep:
            return []
        events, found = self.events(index), []
        if (np.diff(events.t_us) < 0).any():
            found.append(
                f"{name}: {int((np.diff(events.t_us) < 0).sum())} times are earlier than the one before"
            )
        outside = int(((events.x >= self.sensor[0]) | (events.y >= self.sensor[1])).sum())
        if outside:
            found.append(
                f"{name}: {outside} events lie outside the sensor of {self.sensor[0]}x{self.sensor[1]}"
            )
        return found

    def close(self) -> None:
        """Close the file."""
        self._file.close()
