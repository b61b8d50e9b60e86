"""Layouts of event HDF5 files by origin: their columns, times and sensor sizes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.columns import UNIT_NAMES, match_names
from velora_edge.limits import inside, is_in_proportion, is_inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.formats.arrays import Columns


DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError)
"""What h5py raises on damaged files: HDF5's own errors, and Python's where it builds types and names."""

ROWS = 1 << 17
"""Events that are read at once, where the file's chunks do not ask for more."""


def stored_chunks(dataset: Any) -> list[int]:
    """The first row of every chunk that is there, in order."""
    starts: list[int] = []
    dataset.id.chunk_iter(lambda info: starts.append(int(info.chunk_offset[0])))
    return sorted(set(starts))


def stored_rows(dataset: Any) -> int:
    """Rows up to the first one that is not stored; reading more would give zeros that nobody recorded."""
    from h5py import h5d

    rows = int(dataset.shape[0])
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5d.CHUNKED:
        chunk_rows, end = int(dataset.chunks[0]), 0
        for start in stored_chunks(dataset):
            if start > end:
                break
            end = start + chunk_rows
        return min(rows, end)
    if layout == h5d.CONTIGUOUS and not dataset.external:
        at = dataset.id.get_offset()
        if at is None:
            return 0
        row_bytes = dataset.dtype.itemsize * (int(dataset.shape[1]) if dataset.ndim > 1 else 1)
        return max(min(rows, (dataset.file.id.get_filesize() - at) // max(row_bytes, 1)), 0)
    return rows


def check_filters(path: Path, dataset: Any) -> None:
    """Nothing, if every filter of the dataset can be decoded here; imports hdf5plugin where it is needed.

    Raises:
        RecordingError: otherwise; names the filter.
    """
    from h5py import h5z

    plist = dataset.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(i)
        if h5z.filter_avail(code):
            continue
        import hdf5plugin  # noqa: F401  (importing it registers its filters)

        if not h5z.filter_avail(code):
            raise RecordingError(
                f"compressed with HDF5 filter {code} ({name.decode('ascii', 'replace') or 'unnamed'}), "
                "which is not installed",
                path=path,
                place=dataset.name,
                remedy="write the file again with gzip or zstd",
            )


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error) or type(error).__name__).strip("'\"").partition("\n")[0][:200]


_MAX_OBJECTS = 100_000


@dataclass(frozen=True)
class Hdf5Events:
    """One sensor's events in a file.

    Attributes:
        name: path inside the file of the group or the dataset.
        sources: the datasets that are read, by role; one dataset four times where it is a table.
        keys: by role, the column's number or field name in its dataset; None where it is all of it.
    """

    name: str
    sources: dict[str, Any]
    keys: dict[str, Any] = field(default_factory=lambda: dict.fromkeys("txyp"))

    @property
    def lengths(self) -> dict[str, int]:
        """Rows by role."""
        return {role: int(source.shape[0]) for role, source in self.sources.items()}

    def read(self, start: int, stop: int) -> Columns:
        """Rows `start` to `stop` of t, x, y and p."""
        if self.keys["t"] is None:
            rows = [self.sources[role][start:stop] for role in "txyp"]
        else:
            table = self.sources["t"][start:stop]
            is_record = isinstance(self.keys["t"], str)
            rows = [table[self.keys[r]] if is_record else table[:, self.keys[r]] for r in "txyp"]
        return cast("Columns", tuple(rows))

    def read_times(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` to `stop` of t."""
        source, key = self.sources["t"], self.keys["t"]
        if key is None:
            return np.asarray(source[start:stop])
        return np.asarray(source[start:stop][key] if isinstance(key, str) else source[start:stop, key])


def find_events(file: Any) -> list[Hdf5Events]:
    """All sensors' events in an open `h5py.File`, in the order of their names.

    Found are groups with a dataset for each of t, x, y and p, records with these fields, and tables of four
    columns called "events": x y t p in floats (MVSEC), t x y p in integers (v2e).
    """
    import h5py

    found: list[Hdf5Events] = []
    seen = 0

    def visit(name: str, node: Any) -> bool | None:
        nonlocal seen
        seen += 1
        events = _in_group(name, node) if isinstance(node, h5py.Group) else _in_dataset(name, node)
        if events is not None:
            found.append(events)
        return True if seen > _MAX_OBJECTS else None

    visit("", file)
    file.visititems(visit)
    return sorted(found, key=lambda events: events.name)


def _in_group(name: str, group: Any) -> Hdf5Events | None:
    import h5py

    names = match_names(list(group))
    if names is None:
        return None
    columns = {role: inside(group, child) for role, child in names.items()}
    if all(isinstance(column, h5py.Dataset) and column.ndim == 1 for column in columns.values()):
        return Hdf5Events(name or "/", columns)
    return None


def _in_dataset(name: str, node: Any) -> Hdf5Events | None:
    import h5py

    if not isinstance(node, h5py.Dataset):
        return None
    sources = dict.fromkeys("txyp", node)
    if node.dtype.names:
        names = match_names(list(node.dtype.names))
        return Hdf5Events(name, sources, dict(names)) if names and node.ndim == 1 else None
    if node.ndim == 2 and node.shape[1] == 4 and name.rpartition("/")[2] == "events":
        order = "xytp" if node.dtype.kind == "f" else "txyp"
        return Hdf5Events(name, sources, {role: order.index(role) for role in "txyp"})
    return None


def find_origin(file: Any, name: str) -> tuple[str, tuple[int, int] | None]:
    """Find a file's origin by its layout, and that origin's sensor.

    Sources: dsec.ifi.uzh.ch (Prophesee Gen3.1), daniilidis-group.github.io/mvsec (DAVIS m346B),
    m3ed.io (Prophesee Gen4), TUM-VIE (Prophesee Gen4).
    """
    if name.startswith("prophesee/"):
        return "M3ED", (1280, 720)
    if name.startswith("davis/"):
        return "MVSEC", (346, 260)
    if name == "events" and inside(file, "ms_to_idx") is not None:
        return ("DSEC", (640, 480)) if inside(file, "t_offset") is not None else ("TUM-VIE", (1280, 720))
    return "", None


def find_sensor(file: Any, name: str) -> tuple[int, int] | None:
    """The sensor's width and height, where the file tells: beside the events, or further up."""
    for group in _upwards(file, name):
        width, height = _scalar(group, "width"), _scalar(group, "height")
        if width and height:
            return width, height
        for key in (
            "resolution",
            "calib/resolution",
            "sensor_resolution",
            "sensor_size",
            "sensor",
            "geometry",
        ):
            size = _size(group, key)
            if size:
                return size
    return None


def find_time_unit(file: Any, events: Hdf5Events) -> str | None:
    """The unit of time that an attribute tells, as a key of `TIME_UNITS`."""
    for node in (events.sources["t"], *_upwards(file, events.name)):
        for key in ("time_unit", "units", "unit"):
            value = node.attrs.get(key)
            text = value.decode("utf-8", "replace") if isinstance(value, bytes) else value
            if isinstance(text, str) and text.lower() in UNIT_NAMES:
                return UNIT_NAMES[text.lower()]
    return None


def find_t_offset_us(file: Any, name: str) -> int:
    """What is to be added to every time (DSEC's `t_offset`), 0 where there is nothing."""
    for group in _upwards(file, name):
        offset = _number(group, "t_offset")
        if offset is not None:
            return int(offset)
    return 0


def find_recordings(file: Any, name: str, n: int) -> NDArray[np.int64] | None:
    """Find where the recordings of a concatenated file begin, with `n` at the end; None for one recording.

    Told by a dataset `offsets` beside the events' group: int[R + 1], from 0 to `n`, never falling.
    """
    import h5py

    for group in _upwards(file, name):
        node = inside(group, "offsets")
        if not isinstance(node, h5py.Dataset) or node.ndim != 1 or node.dtype.kind not in "iu":
            continue
        if len(node) > 2 and is_inside(node) and is_in_proportion(node):
            offsets = node[:].astype(np.int64)
            if offsets[0] == 0 and offsets[-1] == n and (np.diff(offsets) >= 0).all():
                return cast("NDArray[np.int64]", offsets)
    return None


def _upwards(file: Any, name: str) -> Iterator[Any]:
    """The group of that name, where it is one, and all groups that it lies in, the file last."""
    import h5py

    parts = [part for part in name.split("/") if part]
    for depth in range(len(parts), 0, -1):
        node = inside(file, "/".join(parts[:depth]))
        if isinstance(node, h5py.Group):
            yield node
    yield file


def _values(group: Any, key: str) -> NDArray[Any] | None:
    """A small attribute or dataset as an array."""
    import h5py

    node = inside(group, key)
    if isinstance(node, h5py.Dataset) and node.size is not None and 0 < node.size <= 4 and is_inside(node):
        return np.asarray(node[()])
    value = group.attrs.get(key)
    return None if value is None else np.asarray(value)


def _number(group: Any, key: str) -> int | float | None:
    values = _values(group, key)
    if values is None or values.size != 1 or values.dtype.kind not in "iuf":
        return None
    number = values.reshape(-1)[0].item()
    return number if abs(number) < 2**62 else None


def _scalar(group: Any, key: str) -> int | None:
    number = _number(group, key)
    return int(number) if number is not None and 0 < number <= 65536 else None


def _size(group: Any, key: str) -> tuple[int, int] | None:
    """Two sides; the longer is the width, for both orders are in use and every sensor is landscape."""
    values = _values(group, key)
    if values is None:
        return None
    if values.dtype.kind in "SUO" and values.size == 1:
        text = str(values.reshape(-1)[0]).lower()
        sides = [int(part) for part in text.split("x") if part.isdigit() and len(part) <= 5]
    elif values.dtype.kind in "iuf" and values.ndim == 1:
        sides = [int(side) for side in values[:2] if np.isfinite(side)]
    else:
        return None
    if len(sides) != 2 or min(sides) <= 0 or max(sides) > 65536:
        return None
    return max(sides), min(sides)
