"""Seek index: places from which a recording can be read, kept as `FILE.vidx` or in the user's cache.

The file is the line `VELORA INDEX 1`, a line of JSON (of what the index is, and of which file), and rows of
little-endian int64, signed with a key of this user (HMAC-SHA256). It only ever saves time: one that is stale,
damaged, made by somebody else or cannot be written is passed over.
"""

from __future__ import annotations

import bisect
import contextlib
import hashlib
import hmac
import json
import os
import secrets
import stat
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.files import cache_home, replace_file
from velora_edge.limits import load_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Place = tuple[int, ...]


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


ENDING = ".vidx"
INDEX_FROM_BYTES = 1 << 24
"""Shorter recordings are looked through each time, which takes less than a tenth of a second."""
_MAGIC = b"VELORA INDEX 1\n"
_LOOKED_AT_BYTES = 1 << 12
_LONGEST_HEAD = 1 << 12
_MOST_ROWS = 1 << 24
_KEY_BYTES = 32
_UNUSABLE = (
    OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError, OverflowError, MemoryError,
)  # fmt: skip
"""What a file that is no index of ours may lead to."""


class IndexFile:
    """The index of one recording.

    Args:
        path: of the recording.
        kind: what the rows mean: another kind is passed over.
        columns: of a row.
    """

    def __init__(self, path: Path, kind: str, columns: int) -> None:
        self._path, self._kind, self._columns = path, kind, columns

    def load(self) -> tuple[Rows, bool]:
        """The rows that were kept, int64[N, columns], none if there are none of the file as it is now.

        And whether they reach to the recording's end.
        """
        for place in self._places():
            with contextlib.suppress(*_UNUSABLE):
                return self._read(place)
        return np.empty((0, self._columns), np.int64), False

    def save(self, rows: Rows, *, is_complete: bool) -> Path | None:
        """Keep rows; where, or None if the recording is short, or there is no place for them."""
        if self._path.stat().st_size < INDEX_FROM_BYTES or self._path.is_dir():
            return None
        with contextlib.suppress(*_UNUSABLE):
            head = {"kind": self._kind, "rows": len(rows), "is_complete": is_complete, **self._identity()}
            data = rows.astype("<i8").tobytes()
            signed = {**head, "signature": _sign(head, data, _index_key())}
            text = _MAGIC + json.dumps(signed).encode("ascii") + b"\n" + data
            return self._write(text)
        return None

    def _write(self, data: bytes) -> Path | None:
        for place in self._places():
            with contextlib.suppress(OSError):
                place.parent.mkdir(parents=True, exist_ok=True)
                replace_file(place, data, mode=0o644)
                return place
        return None

    def _read(self, place: Path) -> tuple[Rows, bool]:
        with place.open("rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode) or file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("another kind of file")
            head = load_json(file.readline(_LONGEST_HEAD))
            signature, n = head.pop("signature"), int(head["rows"])
            wanted = {"kind": self._kind, **self._identity()}
            if any(head[key] != value for key, value in wanted.items()) or not 0 <= n <= _MOST_ROWS:
                raise ValueError("of another file, or of this one as it was")
            data = file.read(8 * n * self._columns + 1)
        if not hmac.compare_digest(_sign(head, data, _index_key()).encode(), signature.encode()):
            raise ValueError("damaged, or not made here")
        rows = np.frombuffer(data, "<i8").reshape(n, self._columns).astype(np.int64)
        return rows, bool(head["is_complete"])

    def _places(self) -> tuple[Path, Path]:
        """Where it may be: beside the recording, and in the cache."""
        whole = self._path.resolve()
        name = hashlib.sha256(os.fsencode(whole)).hexdigest()[:32]
        return whole.with_name(whole.name + ENDING), cache_home() / "velora-edge" / f"{name}{ENDING}"

    def _identity(self) -> dict[str, Any]:
        """What tells the recording from any other, and from itself when it was something else."""
        status = self._path.stat()
        with self._path.open("rb") as file:
            digest = hashlib.sha256(file.read(_LOOKED_AT_BYTES))
            file.seek(max(0, status.st_size - _LOOKED_AT_BYTES))
            digest.update(file.read(_LOOKED_AT_BYTES))
        return {
            "size": status.st_size,
            "mtime_ns": status.st_mtime_ns,
            "ctime_ns": status.st_ctime_ns,  # which no archive can set
            "ends": digest.hexdigest()[:32],
        }


def _sign(head: dict[str, Any], rows: bytes, key: bytes) -> str:
    """Over all that is kept: a flipped bit is found, and whoever has not the key cannot make an index."""
    text = json.dumps(head, sort_keys=True).encode("ascii")
    return hmac.new(key, text + b"\n" + rows, hashlib.sha256).hexdigest()


def _index_key() -> bytes:
    """This user's key for indices, made when there is none: what an archive brings is not believed.

    Raises:
        OSError: if there is none and none can be made.
    """
    path = cache_home() / "velora" / "index.key"
    with contextlib.suppress(FileNotFoundError):
        key = path.read_bytes()
        if len(key) == _KEY_BYTES:
            return key
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, secrets.token_bytes(_KEY_BYTES))
    return path.read_bytes()  # where two make one at once, the later one's


_PLACES = 32
"""In which rows are looked at before they are taken to be in order."""
_LONG_AGO = -(1 << 62)


def find_row(
    read_times: Callable[[int, int], NDArray[np.int64]], stop: int, t_us: int, *, probe: int = 1, margin: int
) -> int:
    """A row from which to read for the events at `t_us` and later.

    By halving, which is right for times in order. Where they are not, the rows just before the found one are
    looked at, and it moves back until none of them is at `t_us` or later. A file is looked at in some places
    first: one whose times go back over a good part of it is read from its beginning.

    Args:
        read_times: gives the times, microseconds, of the rows from one number to another; fewer or none,
            where they cannot be read.
        stop: number of rows.
        t_us: the time.
        probe: rows that are read at once while halving.
        margin: rows among which times may be out of order.

    Returns:
        Its number, no later than the first row at `t_us`; 0 if the rows cannot be read.
    """
    if not _looks_ordered(read_times, stop, probe, margin):
        return 0
    low, high = 0, stop
    while high - low > probe:
        middle = (low + high) // 2
        times = read_times(middle, min(middle + probe, high))
        if not len(times):
            return 0
        low, high = (middle, high) if times[0] < t_us else (low, middle)
    while low > 0:
        start = max(0, low - margin)
        times = read_times(start, low)
        if not len(times):
            return 0
        if times.max() < t_us:
            break
        low = start
    return low


def _looks_ordered(
    read_times: Callable[[int, int], NDArray[np.int64]], stop: int, probe: int, margin: int
) -> bool:
    """Whether the times do not fall from one of some places to another."""
    step = max(stop // _PLACES, margin, probe, 1)
    times = [read_times(at, min(at + 1, stop))[:1] for at in range(0, stop, step)]
    return bool((np.diff(np.concatenate(times)) >= 0).all()) if times else True


class PlaceIndex:
    """Places at which a file can be read on, each with the latest time before it; kept in an `IndexFile`.

    Args:
        path: the file.
        kind: what a place's numbers mean.
        first: the place of the first event.
        walk: from a place on, gives the latest time of each piece of the file, None where it has no event,
            and the place after it.
    """

    def __init__(
        self,
        path: Path,
        kind: str,
        first: Place,
        walk: Callable[[Place], Iterator[tuple[int | None, Place]]],
    ) -> None:
        self._path, self._file = path, IndexFile(path, kind, 1 + len(first))
        self._first, self._walk = (_LONG_AGO, *first), walk

    def find(self, t_us: int) -> Place:
        """The last known place before which there is no event at `t_us` or later."""
        kept, is_complete = self._file.load()
        rows = [tuple(row) for row in kept.tolist()] if self._is_sound(kept) else [self._first]
        if rows[-1][0] < t_us and not (is_complete and len(rows) > 1):
            known = len(rows)
            is_complete = self._extend(rows, t_us)
            if len(rows) > known:
                self._file.save(np.array(rows, np.int64), is_complete=is_complete)
        place = bisect.bisect_left(rows, t_us, key=lambda row: row[0])
        return rows[max(place - 1, 0)][1:]

    def _extend(self, rows: list[Place], t_us: int) -> bool:
        """Walk on until `t_us` is passed; whether the file's end was reached."""
        latest_us = rows[-1][0]
        for piece_us, place in self._walk(rows[-1][1:]):
            latest_us = latest_us if piece_us is None else max(latest_us, piece_us)
            rows.append((latest_us, *place))
            if latest_us >= t_us:
                return False
        return True

    def _is_sound(self, rows: NDArray[np.int64]) -> bool:
        return (
            len(rows) > 0
            and tuple(rows[0].tolist()) == self._first
            and bool((np.diff(rows[:, 0]) >= 0).all())
            and bool((np.diff(rows[:, 1]) > 0).all())
            and bool(rows[-1, 1] <= self._path.stat().st_size)
        )
