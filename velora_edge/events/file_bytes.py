"""A file's bytes in order, with a word where somebody cuts the file meanwhile."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path


class FileBytes:
    """Reads a file, a pipe or a device from a position to its end.

    The file's size is looked at after each read: a recording in progress is followed, and one that somebody
    cuts meanwhile gives an error instead of an early end.

    Single-threaded.

    Raises:
        OSError: from any method, as the system reports it.
        RecordingError: from `read_into`, if the file is shorter than it was.
    """

    def __init__(self, path: Path, start: int = 0) -> None:
        self._path = path
        self._file = path.open("rb", buffering=0)
        self._position = start
        status = os.fstat(self._file.fileno())
        self._has_size, self._size = stat.S_ISREG(status.st_mode), status.st_size
        if self._has_size:
            self._file.seek(start)
        else:
            self._file.read(start)

    @property
    def position(self) -> int:
        """Byte that is read next."""
        return self._position

    @property
    def size(self) -> int:
        """Of the file when it was last looked at, bytes; 0 for a pipe."""
        return self._size

    @property
    def is_closed(self) -> bool:
        """Whether `close` was called."""
        return self._file.closed

    def read_into(self, memory: memoryview) -> int:
        """Write the next bytes to `memory`; how many, 0 at the end."""
        got = self._file.readinto(memory) or 0
        if self._has_size:
            self._look_at_size()
        self._position += got
        return got

    def _look_at_size(self) -> None:
        """Take note of the file's size; it may have grown."""
        size = os.fstat(self._file.fileno()).st_size
        if size < self._size:
            raise RecordingError(
                f"the file was cut while it was read: it had {self._size:,} bytes and has {size:,}",
                path=self._path,
                place=f"byte {self._position:,}",
                remedy="let whoever writes it finish, then read it again",
            )
        self._size = size

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()
