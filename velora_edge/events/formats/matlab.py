"""Reader of events in MATLAB's .mat files: variables, or a structure, with t, x, y and p."""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.errors import MissingExtraError, RecordingError
from velora_edge.events.formats.arrays import ColumnReader
from velora_edge.events.formats.columns import match_names, unit_in_name
from velora_edge.limits import Budget, check_stored, inside

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.formats.arrays import Columns

_MAX_DEPTH = 4
_HEADER_BYTES, _COMPRESSED = 128, 15
_PIECE_BYTES = 1 << 20
_MATRIX, _CELL, _STRUCTURE, _OBJECT = 14, 1, 2, 3
_NUMBERS = {1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18}
_FLAGS, _SIZES = 6, 5
_HANDLES = {16, 17}
"""Functions and objects of MATLAB's own, laid out in other ways; SciPy passes over them."""


class MatReader(ColumnReader):
    """A .mat file of version 5 to 7.2 (by SciPy) or 7.3 (which is HDF5).

    Held in memory as a whole: up to version 7.2 a variable has at most 2 GB. Polarities 1 and 2 are OFF and
    ON: MATLAB counts from 1, and so do such files.

    Args:
        path: the file.
        sensor: width and height; None for what the events reach.

    Raises:
        RecordingError: if there are no such columns in the file.
        MissingExtraError: if SciPy is needed and not there.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        self.path, self.warnings = path, []
        with path.open("rb") as file:
            is_hdf5 = file.read(20).startswith(b"MATLAB 7.3")
        variables = _load_hdf5(path) if is_hdf5 else _load_with_scipy(path)
        columns = _find_columns(variables)
        if columns is None:
            found = ", ".join(list(variables)[:8]) or "nothing"
            raise RecordingError(
                f"expected variables or a structure with t, x, y and p, got {found}",
                path=path,
                remedy="rename them",
            )
        time_name = columns.pop("name of t")
        self._columns = self._even(columns)
        warnings = self.warnings
        super().__init__(path, "MAT", sensor, time_unit=unit_in_name(time_name))
        self.warnings[:0] = warnings

    def columns(self, place: Any = None) -> Iterator[Columns]:
        """All at once: they are in memory."""
        yield self._columns

    def _even(self, columns: dict[str, Any]) -> Columns:
        """The columns in one length, with polarities 1 and 2 counted from 0."""
        lengths = {role: len(column) for role, column in columns.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{role} {length:,}" for role, length in lengths.items())
            self.warn(f"the columns differ in length ({found}); read as far as the shortest goes")
        n = min(lengths.values())
        t, x, y, p = (columns[role][:n] for role in "txyp")
        if n and p.min() == 1 and p.max() == 2:
            self.warn("polarities are 1 and 2; taken as OFF and ON")
            p = p - 1
        return t, x, y, p


def _find_columns(variables: dict[str, Any], depth: int = 0) -> dict[str, Any] | None:
    """The four columns by role, and the name of t; the file's own before those of its structures."""
    names = match_names([name for name, value in variables.items() if not isinstance(value, dict)])
    if names:
        return {**{role: variables[name] for role, name in names.items()}, "name of t": names["t"]}
    if depth < _MAX_DEPTH:
        for value in variables.values():
            found = _find_columns(value, depth + 1) if isinstance(value, dict) else None
            if found:
                return found
    return None


def _load_with_scipy(path: Path) -> dict[str, Any]:
    """Vectors of numbers by name, structures as dictionaries of them."""
    try:
        import scipy.io
    except ImportError as error:
        raise MissingExtraError("scipy", "mat", f"reading {path}") from error
    try:
        contents = scipy.io.loadmat(_unpacked(path), squeeze_me=True)
    except RecordingError:
        raise
    except (
        Exception
    ) as error:  # SciPy raises whatever a damaged byte leads it to: TypeError, KeyError, zlib.error
        raise _damaged(path, error) from error
    return {name: value for name, node in contents.items() if (value := _plain(node)) is not None}


def _unpacked(path: Path) -> io.BytesIO:
    """The file with its compressed elements unpacked: SciPy would unpack them whatever they come to.

    Layout (MathWorks, "MAT-File Level 5 File Format"): 128 bytes of header, then elements, each a type and a
    size, u32; type 15 is another element compressed by zlib.
    """
    budget, whole = Budget(path), io.BytesIO()
    with path.open("rb") as file:
        head = file.read(_HEADER_BYTES)
        order = ">" if head[-2:] == b"MI" else "<"
        whole.write(head)
        while len(tag := file.read(8)) == 8:
            kind, size = struct.unpack(order + "II", tag)
            data = file.read(size)
            if kind == _COMPRESSED:
                data = _inflate(data, budget)
                budget.spend(len(data), "what it unpacks to")
                whole.write(data)
            else:
                whole.write(tag + data)
    if head[-2:] in (b"IM", b"MI"):
        _check_elements(memoryview(whole.getvalue())[_HEADER_BYTES:], order)
    whole.seek(0)
    return whole


def _check_elements(data: memoryview, order: str, depth: int = 0) -> list[int]:
    """The types of the elements in `data`, those in matrices checked.

    SciPy looks types up in a table without a look at whether they are in it, and crashes where they are not.

    Raises:
        ValueError: if an element is of no known type, reaches too far, or stands where it may not.
    """
    at, kinds = 0, []
    while at + 8 <= len(data):
        kind, size = struct.unpack_from(order + "II", data, at)
        begin, step = at + 8, 8 + size + -size % 8
        if kind >> 16:  # up to four bytes lie in the tag itself
            kind, size, begin, step = kind & 0xFFFF, kind >> 16, at + 4, 8
        if begin + size > len(data) or (begin == at + 4 and size > 4):
            raise ValueError(f"an element of {size} bytes reaches beyond its end")
        if kind == _MATRIX and size:
            _check_matrix(data[begin : begin + size], order, depth + 1)
        elif kind not in _NUMBERS and kind != _MATRIX:
            raise ValueError(f"an element of the unknown type {kind}")
        kinds.append(kind)
        at += step
    return kinds


def _check_matrix(data: memoryview, order: str, depth: int) -> None:
    """Flags, sizes and a name, and after these numbers or, in structures and cells, matrices."""
    kinds = _check_elements(data, order, depth) if depth <= 2 * _MAX_DEPTH else []
    kind = int.from_bytes(data[8:12], "little" if order == "<" else "big") & 0xFF
    if kind in _HANDLES:
        return
    holds_matrices = kind in (_CELL, _STRUCTURE, _OBJECT)
    names = {_CELL: 0, _STRUCTURE: 2, _OBJECT: 3}.get(kind, 0)
    rest = kinds[3 + names :]
    is_right = all((it == _MATRIX) == holds_matrices for it in rest)
    if kinds[:2] != [_FLAGS, _SIZES] or not is_right or not (rest or holds_matrices):
        raise ValueError(f"a variable of elements {kinds[:10]}")


def _inflate(data: bytes, budget: Budget) -> bytes:
    unpacker, parts, n = zlib.decompressobj(), [], 0
    while data and not unpacker.eof:
        parts.append(unpacker.decompress(data, _PIECE_BYTES))
        data, n = unpacker.unconsumed_tail, n + len(parts[-1])
        budget.check(n, "what it unpacks to")
    return b"".join(parts)


def _plain(node: Any, depth: int = 0) -> Any:
    if not isinstance(node, np.ndarray) or depth > _MAX_DEPTH:
        return None
    if node.dtype.names and node.size == 1:
        record = node.reshape(-1)[0]
        fields = {name: _plain(np.asarray(record[name]), depth + 1) for name in node.dtype.names}
        return {name: value for name, value in fields.items() if value is not None}
    return _vector(node)


def _load_hdf5(path: Path) -> dict[str, Any]:
    """The same from a file of version 7.3."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            return _group(file, 0, Budget(path))
    except RecordingError:
        raise
    except (OSError, RuntimeError, KeyError, ValueError) as error:
        raise _damaged(path, error) from error


def _group(group: Any, depth: int, budget: Budget) -> dict[str, Any]:
    import h5py

    found: dict[str, Any] = {}
    for name in list(group):
        node = inside(group, name)
        if isinstance(node, h5py.Group) and depth < _MAX_DEPTH:
            found[name] = _group(node, depth + 1, budget)
        elif isinstance(node, h5py.Dataset) and node.dtype.kind in "iufb" and node.shape is not None:
            check_stored(budget.path, node)
            budget.spend(node.size * node.dtype.itemsize, "what its variables announce", name)
            vector = _vector(node[()])
            if vector is not None:
                found[name] = vector
    return found


def _vector(array: NDArray[Any]) -> NDArray[Any] | None:
    """The array as a vector, if it is one of numbers along any of its axes."""
    if array.dtype.kind not in "iufb" or array.size != max(array.shape, default=1):
        return None
    return array.reshape(-1)


def _damaged(path: Path, error: Exception) -> RecordingError:
    reason = str(error).partition("\n")[0][:200]
    return RecordingError(f"the .mat file is damaged ({reason})", path=path, remedy="copy or save it again")
