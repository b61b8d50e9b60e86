"""Reading FlatBuffers without generated code: as much as AEDAT4 needs, every position checked.

Layout (flatbuffers.dev/internals): a table begins with an i32, the distance back to its vtable; a vtable is
u16 words: its size in bytes, the table's, then each field's place in the table, 0 where it has the default.
Strings, vectors and tables are u32 distances forward; vectors begin with a u32 count.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any

    from numpy.typing import NDArray

_SIZES = {"b": 1, "B": 1, "h": 2, "H": 2, "i": 4, "I": 4, "q": 8}


class Table:
    """One table in a buffer.

    Args:
        data: the buffer, from after its size prefix.
        at: the table's position in it.

    Raises:
        RecordingError: here and in every method, if something lies outside the buffer.
    """

    __slots__ = ("_at", "_data", "_vtable", "_vtable_size")

    def __init__(self, data: bytes | memoryview, at: int) -> None:
        self._data, self._at = data, at
        self._vtable = at - _unpack(data, "i", at)
        self._vtable_size = _unpack(data, "H", self._vtable)

    @classmethod
    def of_prefixed(cls, data: bytes | memoryview, identifier: bytes) -> Table:
        """The root table of a buffer that begins with its size, which must be of this kind."""
        size = _unpack(data, "I", 0)
        if size + 4 > len(data):
            raise RecordingError(f"expected a FlatBuffer of {size} bytes, got {len(data) - 4}")
        body = memoryview(data)[4 : 4 + size]
        if bytes(body[4:8]) != identifier:
            raise RecordingError(f"expected a FlatBuffer of kind {identifier!r}, got {bytes(body[4:8])!r}")
        return cls(body, _unpack(body, "I", 0))

    def number(self, field: int, code: str, default: int = 0) -> int:
        """An integer field, by its number in the schema and its `struct` code."""
        at = self._find(field)
        return _unpack(self._data, code, at) if at else default

    def text(self, field: int) -> str:
        """A string field, empty where there is none."""
        at = self._find(field)
        start, n = self._vector(at, 1) if at else (0, 0)
        return bytes(self._data[start : start + n]).decode("utf-8", "replace")

    def array(self, field: int, dtype: np.dtype[Any]) -> NDArray[Any]:
        """A vector of numbers or structs; a view of the buffer."""
        at = self._find(field)
        if not at:
            return np.empty(0, dtype)
        start, n = self._vector(at, dtype.itemsize)
        return np.frombuffer(self._data, dtype, count=n, offset=start)

    def tables(self, field: int) -> Iterator[Table]:
        """A vector of tables."""
        at = self._find(field)
        start, n = self._vector(at, 4) if at else (0, 0)
        for place in range(start, start + 4 * n, 4):
            yield Table(self._data, place + _unpack(self._data, "I", place))

    def _find(self, field: int) -> int:
        """Position of a field, 0 where it has its default."""
        entry = 4 + 2 * field
        if entry + 2 > self._vtable_size:
            return 0
        offset = _unpack(self._data, "H", self._vtable + entry)
        return self._at + offset if offset else 0

    def _vector(self, at: int, item_bytes: int) -> tuple[int, int]:
        """Position of a vector's first item, and how many there are."""
        start = at + _unpack(self._data, "I", at)
        n = _unpack(self._data, "I", start)
        if start + 4 + n * item_bytes > len(self._data):
            raise RecordingError(f"a FlatBuffer vector of {n} items reaches past the buffer's end")
        return start + 4, n


def _unpack(data: bytes | memoryview, code: str, at: int) -> int:
    if at < 0 or at + _SIZES[code] > len(data):
        raise RecordingError(f"a FlatBuffer position, {at}, outside of its {len(data)} bytes")
    number: int = struct.unpack_from("<" + code, data, at)[0]
    return number
