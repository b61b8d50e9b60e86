"""Every event format by name, and `open_events`, which tells them apart by content.

A format is one file with a reader and one `register` line at the end of this one. A reader's module is
imported when a file of its format is opened, so a format may need an optional library.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from velora_edge.errors import InputError, RecordingError
from velora_edge.events import sniffing

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    from velora_edge.events.base import EventReader

    Sniff = Callable[[bytes, Path], bool]

HEAD_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Format:
    """One line of the registry.

    Attributes:
        name: what users call it, such as "EVT3".
        module: the module that reads it.
        factory: name of the class or function in it, called as `factory(path, sensor=...)`,
            where sensor is (width, height) or None.
        sniff: tells from a file's first bytes (at most `HEAD_BYTES`) and its path whether it is of this
            format; a folder has no bytes.
        has_parts: whether a file may hold several sensors or recordings; then the factory also takes
            `part=...`, a string or None.
    """

    name: str
    module: str
    factory: str
    sniff: Sniff
    has_parts: bool = False

    def open(self, path: Path, sensor: tuple[int, int] | None, part: str | None = None) -> EventReader:
        """A reader of the file, which is of this format."""
        if part is not None and not self.has_parts:
            raise RecordingError(
                f"a file of format {self.name} has no parts, so there is no {part!r} in it", path=path
            )
        factory = getattr(importlib.import_module(self.module), self.factory)
        options = {"part": part} if self.has_parts else {}
        return cast("EventReader", factory(path, sensor=sensor, **options))


FORMATS: dict[str, Format] = {}


def register(name: str, module: str, factory: str, sniff: Sniff, *, has_parts: bool = False) -> None:
    """Add a format; those registered first are asked first."""
    FORMATS[name.upper()] = Format(name, module, factory, sniff, has_parts)


def open_events(
    path: str | PathLike[str],
    *,
    format: str | None = None,  # noqa: A002
    sensor: tuple[int, int] | None = None,
    part: str | int | None = None,
) -> EventReader:
    """A reader of the recording at `path`, whatever its format; the name's ending does not matter.

    Args:
        path: the file; "FILE#PART" names a part of it.
        format: name of the format, where the content is not to decide (a stream without its header).
        sensor: width and height in pixels; for files that do not tell, and before what files tell.
        part: which sensor or recording, where a file holds several: "right", a topic, a recording's number.

    Raises:
        RecordingError: if there is no such file, or it is empty, or of no format that is known, or
            unusable from its start. Later damage is survived and told in the reader's `warnings`.
    """
    path, part = _split_part(Path(path), part)
    head = _read_head(path)
    if sensor is not None and not all(0 < side <= 65536 for side in sensor):
        raise InputError(f"expected a sensor of 1 to 65536 pixels a side, got {sensor[0]}x{sensor[1]}")
    if format is not None:
        if format.upper() not in FORMATS:
            raise InputError(f"no event format is called {format!r}; there are {_names()}")
        return FORMATS[format.upper()].open(path, sensor, part)
    for known in FORMATS.values():
        if known.sniff(head, path):
            return known.open(path, sensor, part)
    if path.is_dir():
        raise RecordingError("is a folder, expected an event file", path=path, remedy="give a file in it")
    raise RecordingError(
        f"not a recording of any known format ({_names()}): it begins with {_describe(head)}",
        path=path,
        remedy="check the file, or name the format if it lacks its header",
    )


def _split_part(path: Path, part: str | int | None) -> tuple[Path, str | None]:
    name, _, named_part = str(path).rpartition("#")
    if part is None and name and not path.exists() and Path(name).exists():
        return Path(name), named_part
    return path, None if part is None else str(part)


def _read_head(path: Path) -> bytes:
    if path.is_dir():
        return b""
    try:
        with path.open("rb") as file:
            head = file.read(HEAD_BYTES)
    except FileNotFoundError:
        raise RecordingError("no such file", path=path, remedy="check the path") from None
    except OSError as error:
        raise RecordingError(
            f"cannot be read: {error.strerror}", path=path, remedy="check the path"
        ) from error
    if not head:
        raise RecordingError("the file is empty", path=path, remedy="record or copy it again")
    return head


def _names() -> str:
    return ", ".join(known.name for known in FORMATS.values())


def _describe(head: bytes) -> str:
    start = head[:16]
    is_text = all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start)
    return f"the text {start.decode('ascii')!r}" if is_text else f"the bytes {start[:8].hex(' ')}"


def _is_raw(head: bytes, path: Path) -> bool:
    return head.startswith(b"%") and b"Data file containing" not in head.partition(b"\n")[0]


def _never(head: bytes, path: Path) -> bool:
    return False


register("DAT", "velora_edge.events.formats.dat", "DatReader", sniffing.is_dat)
register("CSV", "velora_edge.events.formats.csv_text", "CsvReader", sniffing.is_table_of_text)
register("RAW", "velora_edge.events.formats.raw.raw", "open_raw", _is_raw)
register("EVT2", "velora_edge.events.formats.raw.raw", "open_evt2", _never)
register("EVT2.1", "velora_edge.events.formats.raw.raw", "open_evt21", _never)
register("EVT3", "velora_edge.events.formats.raw.raw", "open_evt3", _never)
register("HDF5", "velora_edge.events.formats.hdf5.hdf5", "open_hdf5", sniffing.is_hdf5, has_parts=True)
register("N-MNIST", "velora_edge.events.formats.nmnist", "NMnistReader", sniffing.is_nmnist)
register(
    "AEDAT4", "velora_edge.events.formats.aedat4.aedat4", "Aedat4Reader", sniffing.is_aedat4, has_parts=True
)
register(
    "AEDAT 1-3", "velora_edge.events.formats.aedat4.aedat4", "refuse_older_aedat", sniffing.is_older_aedat
)
register("MAT", "velora_edge.events.formats.matlab", "MatReader", sniffing.is_mat)
register("NumPy", "velora_edge.events.formats.numpy_files", "NumpyReader", sniffing.is_numpy)
register("ROS", "velora_edge.events.formats.ros.ros_bag", "RosBagReader", sniffing.is_ros_bag, has_parts=True)
