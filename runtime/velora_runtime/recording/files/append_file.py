"""A file that only grows, and is whole up to its last byte at any moment that the process may die."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LARGEST_RESERVE = 64 << 20
"""Bytes that a recording leaves free on a disk that has them."""


class AppendFile:
    """Writes go to the system at once, so that what was written outlives a killed process.

    Single-threaded: whoever writes.

    Args:
        path: of the file; replaced.

    Attributes:
        path: of the file.
        size: bytes written.
    """

    def __init__(self, path: Path) -> None:
        self.path, self.size = path, 0
        self._file = path.open("wb", buffering=0)

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Append all of `data`; return its length.

        Raises:
            OSError: if the disk is full or gone; the file then ends with a part of `data`.
        """
        rest = memoryview(data).cast("B")
        length = len(rest)
        while len(rest):
            n = self._file.write(rest) or 0
            self.size += n
            rest = rest[n:]
        return length

    def sync(self) -> None:
        """Return once the disk has it, so that it outlives a power cut."""
        os.fdatasync(self._file.fileno())

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


def check_room(folder: Path) -> None:
    """Refuse to fill a disk to its last byte: others, such as `--out`, may still have to write to it.

    Raises:
        OSError: with ENOSPC, if less than 64 MiB (or 2 % of a small disk) are free.
    """
    disk = os.statvfs(folder)
    reserve = min(LARGEST_RESERVE, disk.f_blocks * disk.f_frsize // 50)
    if disk.f_bavail * disk.f_frsize < reserve:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
