"""Registry of event formats, and `open_events`, which detects a file's format by content and name.

A format is one file with a reader and one line in `FORMATS`, or a plugin (`velora.event_formats`). A reader's
module is imported when a file of its format is opened, so a format may need an optional library.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from velora_edge.errors import InputError, RecordingError
from velora_edge.extensions import Extension, Option, Registry
from velora_edge.limits import check_picture

if TYPE_CHECKING:
    from os import PathLike

    from velora_edge.events.base import EventReader

_HDF5_MAGIC = b"\x89HDF\r\n\x1a\n"


def is_hdf5(head: bytes, path: Path) -> bool:
    """HDF5; the superblock may come after a user block of 512 bytes or a power of two times that."""
    return any(head[at:].startswith(_HDF5_MAGIC) for at in (0, 512, 1024, 2048)) and not is_mat(head, path)


def is_mat(head: bytes, path: Path) -> bool:
    """MATLAB's files from version 5 on; those of version 7.3 are HDF5 behind 512 bytes of text."""
    return head.startswith((b"MATLAB 5.0 MAT-file", b"MATLAB 7.3 MAT-file"))


def is_dat(head: bytes, path: Path) -> bool:
    """DAT: a header of `%` lines, then the type and the size of an event.

    RAW has such a header too. DAT's says so in its first line, or has a version and no key of RAW's.
    """
    if not head.startswith(b"%"):
        return False
    if b"Data file containing" in head.partition(b"\n")[0]:
        return True
    at, keys = 0, set()
    while head[at : at + 1] == b"%" and (end := head.find(b"\n", at)) >= 0:
        keys.add(head[at + 1 : end].split()[0].lower() if head[at + 1 : end].split() else b"")
        at = end + 1
    is_raw = keys & {b"evt", b"format", b"geometry", b"end", b"plugin_name", b"system_id"}
    return (
        b"version" in keys
        and not is_raw
        and head[at : at + 1] in b"\x00\x0c\x0e"
        and head[at + 1 : at + 2] == b"\x08"
    )


def is_nmnist(head: bytes, path: Path) -> bool:
    """N-MNIST's `.bin`, by its times: they never fall, between y = 240 overflows too.

    There is no other mark, so a few events are only taken from a file that is called `.bin`.
    """
    n = len(head) // 5
    if n < (1 if path.suffix.lower() == ".bin" else 64):
        return False
    overflow_us = last_us = 0
    for at in range(0, 5 * n, 5):
        if head[at + 1] == 240:
            overflow_us += 1 << 13
            continue
        t_us = overflow_us + ((head[at + 2] & 127) << 16 | head[at + 3] << 8 | head[at + 4])
        if not last_us <= t_us < last_us + 10_000_000:
            return False
        last_us = t_us
    return True


def is_aedat4(head: bytes, path: Path) -> bool:
    """AEDAT version 4."""
    return head.startswith(b"#!AER-DAT4.")


def is_aedat2(head: bytes, path: Path) -> bool:
    """AEDAT version 2."""
    return head.startswith(b"#!AER-DAT2.")


def is_unread_aedat(head: bytes, path: Path) -> bool:
    """AEDAT of another version."""
    return head.startswith(b"#!AER-DAT") and not is_aedat4(head, path) and not is_aedat2(head, path)


def is_numpy(head: bytes, path: Path) -> bool:
    """An array of NumPy's, or a zip archive, which is what .npz is."""
    return head.startswith((b"\x93NUMPY", b"PK\x03\x04"))


def is_table_of_text(head: bytes, path: Path) -> bool:
    """Lines of four numbers or more, between commas or blanks, after a line of names or comments."""
    if any(byte < 32 and byte not in b"\t\r\n" for byte in head):
        return False
    lines = head.split(b"\n")
    complete = lines[:-1] if len(lines) > 1 else lines
    rows = [line for line in complete if line.strip() and not line.lstrip().startswith((b"#", b"%", b"//"))]
    return any(_is_row_of_numbers(line) for line in rows[:2])


def _is_row_of_numbers(line: bytes) -> bool:
    words = line.replace(b",", b" ").replace(b";", b" ").split()
    if not 4 <= len(words) <= 64:
        return False
    return sum(_is_number(word) for word in words) >= 3


def _is_number(word: bytes) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def is_ros_bag(head: bytes, path: Path) -> bool:
    """A ROS 1 bag, an MCAP or SQLite file, or a folder with a ROS 2 bag's metadata."""
    if not head:
        return (path / "metadata.yaml").is_file()
    return head.startswith((b"#ROSBAG V2.0", b"\x89MCAP0\r\n", b"SQLite format 3\0"))


HEAD_BYTES = 4096
"""How much of a file's beginning tells its format."""
PART = Option("part", "PART", "which sensor or recording, where a file holds several")


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
    known = FORMATS.claiming(head, path) if format is None else FORMATS.find(format)
    if known is not None:
        return _open(known, path, sensor, part)
    if format is not None:
        raise InputError(f"no event format is called {format!r}; there are {FORMATS.names()}")
    if path.is_dir():
        raise RecordingError("is a folder, expected an event file", path=path, remedy="give a file in it")
    raise RecordingError(
        f"not a recording of any known format ({FORMATS.names()}): it begins with {_describe(head)}",
        path=path,
        remedy="check the file, or name the format if it lacks its header",
    )


def _open(format_: Extension, path: Path, sensor: tuple[int, int] | None, part: str | None) -> EventReader:
    has_parts = PART.name in (option.name for option in format_.options)
    if part is not None and not has_parts:
        raise RecordingError(
            f"a file of format {format_.name} has no parts, so there is no {part!r} in it", path=path
        )
    options = {PART.name: part} if has_parts else {}
    return _checked(cast("EventReader", format_.load()(path, sensor=sensor, **options)))


def _checked(reader: EventReader) -> EventReader:
    """The reader, if its sensor is one that frames can be made of."""
    try:
        check_picture(reader.width, reader.height)
    except ValueError as error:
        reader.close()
        raise RecordingError(
            f"announces {error}", path=reader.path, remedy="pass the sensor's size, as in --sensor 640x480"
        ) from error
    return reader


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


def _describe(head: bytes) -> str:
    start = head[:16]
    is_text = all(byte in b"\t\r\n" or 32 <= byte < 127 for byte in start)
    return f"the text {start.decode('ascii')!r}" if is_text else f"the bytes {start[:8].hex(' ')}"


def _is_raw(head: bytes, path: Path) -> bool:
    return head.startswith(b"%") and b"Data file containing" not in head.partition(b"\n")[0]


_F = "velora_edge.events.formats."
FORMATS = Registry(
    "velora.event_formats",
    [
        Extension("DAT", f"{_F}binary:DatReader", "Prophesee's DAT", is_dat),
        Extension("CSV", f"{_F}csv_text:CsvReader", "text, an event a line", is_table_of_text),
        Extension("RAW", f"{_F}raw.raw:open_raw", "Prophesee's raw words, as the header says", _is_raw),
        Extension("EVT2", f"{_F}raw.raw:open_evt2", "raw words without a header"),
        Extension("EVT2.1", f"{_F}raw.raw:open_evt21", "likewise"),
        Extension("EVT3", f"{_F}raw.raw:open_evt3", "likewise"),
        Extension("HDF5", f"{_F}hdf5.hdf5:open_hdf5", "HDF5 of several layouts", is_hdf5, (PART,)),
        Extension("N-MNIST", f"{_F}binary:NMnistReader", "N-MNIST and N-Caltech101", is_nmnist),
        Extension("AEDAT4", f"{_F}aedat4:Aedat4Reader", "iniVation's AEDAT 4", is_aedat4, (PART,)),
        Extension("AEDAT2", f"{_F}aedat2:Aedat2Reader", "jAER's AEDAT 2.0", is_aedat2),
        Extension("AEDAT 1, 3", f"{_F}aedat4:refuse_other_aedat", "refused with advice", is_unread_aedat),
        Extension("MAT", f"{_F}matlab:MatReader", "MATLAB's files", is_mat),
        Extension("NumPy", f"{_F}numpy_files:NumpyReader", ".npy and .npz", is_numpy),
        Extension("ROS", f"{_F}ros_bag:RosBagReader", "bags of ROS 1 and 2, MCAP", is_ros_bag, (PART,)),
    ],
)
"""Those first in it are asked first; called as `reader(path, sensor=...)`, sensor (width, height) or None,
and `part=...` where that is among the options. A `claims` gets a file's first `HEAD_BYTES`, none for a
folder, and its path."""
