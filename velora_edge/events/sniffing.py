"""Telling formats apart by a file's first bytes; nothing heavy is imported here."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

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


def is_older_aedat(head: bytes, path: Path) -> bool:
    """AEDAT before version 4."""
    return head.startswith(b"#!AER-DAT") and not is_aedat4(head, path)


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
