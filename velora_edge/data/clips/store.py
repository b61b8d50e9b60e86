"""Store of packed clips in one HDF5 file, shared by threads, opened by each process for itself.

Layout: `rgb`, `event` uint8[M, H, W, 3], the pairs of all recordings one after the other, a chunk each,
compressed without loss by any filter of HDF5 (written: LZ4); one of the two may be missing. `offsets`
int64[N + 1], where each recording begins; `label` int64[N]; `name`, `split` strings [N], split empty where it
is not set. Attributes: `format`, `version`, `labels`, `event`, `rgb` (JSON; how images were made), `source`
(what it was packed from), `event_frames` (files, where event images came from image files), `rate_hz` (pairs
a second, where known).
"""

from __future__ import annotations

import json
import os
import threading
from typing import TYPE_CHECKING, Any

import h5py
import hdf5plugin
import numpy as np
from h5py import h5s

from velora_edge.bundle import EventInput, RGBInput
from velora_edge.data.clips.clips import CAMERAS, ClipSource, ClipSpec, Item, Pairs
from velora_edge.errors import DatasetError
from velora_edge.files import PartFile
from velora_edge.limits import check_stored, follow_remedy, inside, load_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path
    from types import TracebackType

    from numpy.typing import NDArray
    from typing_extensions import Self

    from velora_edge.data.clips.clips import EventFrames, Modality


class Hdf5File:
    """Opened for reading when first asked for; anew in each process, since handles do not survive a fork.

    Callable from any thread.

    Args:
        path: the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._opened: tuple[int, h5py.File] | None = None

    def __call__(self) -> h5py.File:
        """The open file.

        Raises:
            DatasetError: if it cannot be opened.
        """
        with self._lock:
            if self._opened is None or self._opened[0] != os.getpid():
                try:
                    self._opened = os.getpid(), h5py.File(self.path, "r")
                except OSError as error:
                    reason = str(error).splitlines()[0]
                    raise DatasetError(
                        [f"cannot be read as HDF5: {reason}"], path=self.path, remedy="copy or make it again"
                    ) from error
            return self._opened[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"path": self.path}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["path"])  # type: ignore[misc]

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            if self._opened is not None and self._opened[0] == os.getpid():
                self._opened[1].close()
            self._opened = None


FORMAT, VERSION = "velora-clips", 1


class ClipStore(ClipSource):
    """Packed recordings.

    Args:
        path: the file.
        spec: the form of the clips; images must have been packed as it says.

    Raises:
        DatasetError: if the file is damaged, or was packed in another form; says which command packs it anew.
    """

    kind = "store"

    def __init__(self, path: Path, spec: ClipSpec) -> None:
        self.path, self.spec, self._file = path, spec, Hdf5File(path)
        file = self._file()
        _check_stored(path, file)
        if file.attrs.get("version") != VERSION:
            raise DatasetError(
                [f"version {file.attrs.get('version')} of the format; this velora-edge reads {VERSION}"],
                path=path,
                remedy="pack it again with velora dataset build",
            )
        self.labels = tuple(load_json(file.attrs["labels"]))
        self.source = str(file.attrs.get("source", ""))
        self.event_frames: EventFrames = "files" if file.attrs.get("event_frames") == "files" else "packed"
        self._rate_hz = float(file.attrs["rate_hz"]) if "rate_hz" in file.attrs else None
        self.cameras = tuple(camera for camera in CAMERAS if camera in file)
        self._offsets = file["offsets"][:].astype(np.int64)
        names, splits = (file[key].asstr()[:] for key in ("name", "split"))
        targets = file["label"][:]
        self.items = [
            Item(str(name), int(label), str(split) or None)  # type: ignore[arg-type]
            for name, label, split in zip(names, targets, splits, strict=True)
        ]
        self._check_form(file)

    def _check_form(self, file: h5py.File) -> None:
        found = []
        size = file[self.cameras[0]].shape[1:3]
        if size != self.spec.image_size:
            found.append(f"images are {_hw(size)}, the model takes {_hw(self.spec.image_size)}")
        for name, wanted in (("event", self.spec.event), ("rgb", self.spec.rgb)):
            packed = type(wanted).model_validate(load_json(file.attrs[name])).model_dump(mode="json")
            asked = wanted.model_dump(mode="json")
            if name in self.cameras:
                found += [
                    f"{name}.{key} is {packed.get(key)}, the model takes {asked[key]}"
                    for key in asked
                    if packed.get(key) != asked[key]
                ]
        if found:
            raise DatasetError(
                found,
                path=self.path,
                remedy=f"pack it in the model's form: velora dataset build {self.source or 'SET'} OUT.h5 "
                "--for CONFIG",
            )

    @property
    def rate_hz(self) -> float | None:
        """See `ClipSource.rate_hz`: as it was packed, else as the spec says."""
        return self._rate_hz or self.spec.rate_hz

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`."""
        return int(self._offsets[index + 1] - self._offsets[index])

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`."""
        file = self._file()
        rows = (which + self._offsets[index]).tolist()
        try:
            images = {camera: _read_rows(file[camera], rows) for camera in self.cameras}
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise DatasetError([f"{self.items[index].name}: {reason}"], path=self.path) from error
        return Pairs(images.get("rgb"), images.get("event"))

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """See `ClipSource.problems`."""
        if self.pairs(index) < 1:
            return [f"{self.items[index].name}: no pairs"]
        if deep:
            try:
                self.read(index, np.arange(self.pairs(index)))
            except DatasetError as error:
                return list(error.problems)
        return []

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def _read_rows(dataset: h5py.Dataset, rows: Sequence[int]) -> NDArray[np.uint8]:
    """Rows in any order; one by one, since HDF5 is many times slower with a list.

    The selection of a row is moved in place: h5py makes a new one each time, which costs half of the reading
    (decision 0041).
    """
    shape = dataset.shape[1:]
    images = np.empty((len(rows), *shape), np.uint8)
    stored, one, corner = dataset.id.get_space(), h5s.create_simple(shape), (0,) * len(shape)
    for image, row in zip(images, rows, strict=True):
        stored.select_hyperslab((row, *corner), (1, *shape))
        dataset.id.read(one, stored, image)
    return images


class ClipStoreWriter:
    """Writes a store beside its place and moves it there when it is whole; otherwise leaves nothing.

    Args:
        path: where the store goes; a file that is there is replaced.
        labels: class names.
        cameras: which of the two cameras there are.
        spec: the form of the images.
        source: what is packed, for the reader.
        event_frames: who made the event images.
        rate_hz: pairs a second, where it is known.
    """

    def __init__(
        self,
        path: Path,
        labels: tuple[str, ...],
        cameras: tuple[Modality, ...],
        spec: ClipSpec,
        source: str,
        event_frames: EventFrames = "packed",
        rate_hz: float | None = None,
    ) -> None:
        self._event_frames, self._rate_hz = event_frames, rate_hz
        self.path, self.labels, self.cameras, self.spec, self.source = path, labels, cameras, spec, source
        self._offsets, self._items = [0], list[Item]()

    def __enter__(self) -> Self:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._part = PartFile(self.path)
        self._file = h5py.File(self._part.path, "w")
        height, width = self.spec.image_size
        for camera in self.cameras:
            self._file.create_dataset(
                camera,
                shape=(0, height, width, 3),
                maxshape=(None, height, width, 3),
                chunks=(1, height, width, 3),
                dtype=np.uint8,
                **hdf5plugin.LZ4(),  # Blosc2 with LZ4 is three times slower to read: decision 0041
            )
        return self

    def add(self, item: Item, pairs: Pairs) -> int:
        """Append a recording with the pairs that are to be kept; returns how many they are."""
        count = 0
        for camera in self.cameras:
            images = pairs.rgb if camera == "rgb" else pairs.event
            if images is None:
                raise DatasetError([f"{item.name}: has no {camera} images, others of the set have"])
            data, count = self._file[camera], len(images)
            data.resize(self._offsets[-1] + count, axis=0)
            data[self._offsets[-1] :] = images
        self._offsets.append(self._offsets[-1] + count)
        self._items.append(item)
        return count

    def finish(self) -> None:
        """Complete the file and move it to its place."""
        file, text = self._file, h5py.string_dtype()
        file["offsets"] = np.array(self._offsets, np.int64)
        file["label"] = np.array([item.label for item in self._items], np.int64)
        file.create_dataset("name", data=[item.name for item in self._items], dtype=text)
        file.create_dataset("split", data=[item.split or "" for item in self._items], dtype=text)
        facts: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "labels": json.dumps(self.labels),
            "event": self.spec.event.model_dump_json(),
            "rgb": self.spec.rgb.model_dump_json(),
            "source": self.source,
            "event_frames": self._event_frames,
            **({} if self._rate_hz is None else {"rate_hz": self._rate_hz}),
        }
        file.attrs.update(facts)
        file.close()
        self._part.commit()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        self._part.discard()


def _check_stored(path: Path, file: h5py.File) -> None:
    """Refuse datasets that lie in other files, or whose chunks are out of proportion to this one."""
    for name in file:
        node = inside(file, name)
        if node is None:
            raise DatasetError([f"{name} is a link to another file"], path=path, remedy=follow_remedy())
        if isinstance(node, h5py.Dataset):
            check_stored(path, node)


def stored_spec(path: Path, length: int = 2) -> ClipSpec:
    """The form that a store's images were packed in.

    Raises:
        DatasetError: if the file cannot be read.
    """
    opener = Hdf5File(path)
    file = opener()
    height, width = next(file[camera].shape[1:3] for camera in CAMERAS if camera in file)
    event, rgb = (load_json(file.attrs[camera]) for camera in ("event", "rgb"))
    opener.close()
    return ClipSpec(length, (height, width), event=EventInput(**event), rgb=RGBInput(**rgb))


def is_store(file: h5py.File) -> bool:
    """Whether an HDF5 file is a store of clips."""
    return bool(file.attrs.get("format") == FORMAT)


def _hw(size: tuple[int, ...]) -> str:
    return f"{size[1]}x{size[0]}"
