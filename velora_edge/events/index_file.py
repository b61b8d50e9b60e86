"""An index kept beside a recording, `FILE.vidx`, or in the user's cache where that folder is read-only.

The file is the line `VELORA INDEX 1`, a line of JSON (of what the index is, and of which file), and rows of
little-endian int64. It only ever saves time: one that is stale, damaged or cannot be written is passed over.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.cache import cache_home

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

ENDING = ".vidx"
INDEX_FROM_BYTES = 1 << 24
"""Shorter recordings are looked through each time, which takes less than a tenth of a second."""
_MAGIC = b"VELORA INDEX 1\n"
_LOOKED_AT_BYTES = 1 << 12
_LONGEST_HEAD = 1 << 12
_MOST_ROWS = 1 << 24


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
            with contextlib.suppress(OSError, ValueError, TypeError, KeyError, RecursionError):
                return self._read(place)
        return np.empty((0, self._columns), np.int64), False

    def save(self, rows: Rows, *, is_complete: bool) -> Path | None:
        """Keep rows; where, or None if the recording is short, or there is no place for them."""
        if self._path.stat().st_size < INDEX_FROM_BYTES or self._path.is_dir():
            return None
        head = {"kind": self._kind, "rows": len(rows), "is_complete": is_complete, **self._identity()}
        data = _MAGIC + json.dumps(head).encode("ascii") + b"\n" + rows.astype("<i8").tobytes()
        for place in self._places():
            part = place.with_name(f"{place.name}.{os.getpid()}.part")
            try:
                place.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(data)
                part.replace(place)
            except OSError:
                with contextlib.suppress(OSError):
                    part.unlink()
                continue
            return place
        return None

    def _read(self, place: Path) -> tuple[Rows, bool]:
        with place.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise ValueError("another kind of file")
            head = json.loads(file.readline(_LONGEST_HEAD))
            wanted = {"kind": self._kind, **self._identity()}
            n = int(head["rows"])
            if any(head[key] != value for key, value in wanted.items()) or not 0 <= n <= _MOST_ROWS:
                raise ValueError("of another file, or of this one as it was")
            data = file.read(8 * n * self._columns)
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
        return {"size": status.st_size, "mtime_ns": status.st_mtime_ns, "ends": digest.hexdigest()[:32]}
