"""Events in NumPy's files: records or four columns in .npy, these or an array for each column in .npz."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.column_names import guess_order, match_names, unit_in_name
from velora_edge.events.formats.column_reader import ColumnReader
from velora_edge.events.formats.columns import check_columns
from velora_edge.events.formats.numpy_array import NumpyArray, open_arrays
from velora_edge.events.places import find_row

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.formats.column_reader import Columns

ROWS = 1 << 17
_NO_ROWS = (np.empty(0),)


class NumpyReader(ColumnReader):
    """A .npy or .npz file of events.

    Records go by the names of their fields, arrays in .npz by their own; columns without names are told apart
    by their values, which is noted where they are not t x y p.

    Args:
        path: the file.
        sensor: width and height; None for what the file tells (`sensor`, or `width` and `height`, in .npz) or
            what the events reach.

    Raises:
        RecordingError: if there are no such columns in the file.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        self.path, self.warnings = path, []
        arrays = open_arrays(path)
        self._table: NumpyArray | None = None
        names = match_names(list(arrays))
        if names is not None:
            self._columns: dict[str, Any] = {role: arrays[name] for role, name in names.items()}
            self._keys: dict[str, Any] = dict.fromkeys("txyp")
            time_name = names["t"]
        else:
            self._table = _find_table(path, arrays)
            self._columns = dict.fromkeys("txyp", self._table)
            self._keys, time_name = self._find_keys(self._table)
        self._check()
        warnings = self.warnings
        found = sensor or _find_sensor(arrays)
        super().__init__(path, "NumPy", found, time_unit=unit_in_name(time_name))
        self.warnings[:0] = warnings

    def columns(self, place: Any = None) -> Iterator[Columns]:
        """The rows in pieces, from row number `place` on."""
        n = min(len(column) for column in self._columns.values())
        read = place or 0
        for columns in self._pieces(read, ROWS):
            rows = min(len(column) for column in columns)
            read += rows
            self.done = read / n if n else None
            yield cast("Columns", tuple(column[:rows] for column in columns))
        if read < n:
            self.warn(f"the file is cut off: {read:,} of {n:,} events are there")

    def find_place(self, t_us: int) -> int:
        """Number of a row; 0 in .npz files, which can only be read from their start."""
        if self._table is None or not self._table.is_seekable:
            return 0

        def read_times(start: int, stop: int) -> NDArray[np.int64]:
            return self.times_us(next(self._pieces(start, stop - start), _NO_ROWS)[0])

        return find_row(read_times, len(self._table), t_us, probe=ROWS, margin=ROWS)

    def _pieces(self, start: int, rows: int) -> Iterator[tuple[NDArray[Any], ...]]:
        if self._table is not None and self._table.dtype.names:
            for records in self._table.pieces(rows, start=start):
                yield tuple(records[self._keys[role]] for role in "txyp")
            return
        pieces = [self._columns[role].pieces(rows, self._keys[role], start) for role in "txyp"]
        yield from zip(*pieces, strict=False)

    def _find_keys(self, table: NumpyArray) -> tuple[dict[str, Any], str]:
        if table.dtype.names:
            names = match_names(table.dtype.names)
            if names is None:
                raise RecordingError(
                    f"expected fields t, x, y and p, got {', '.join(table.dtype.names)}",
                    path=self.path,
                    place=table.name,
                    remedy="rename them",
                )
            return dict(names), names["t"]
        first = [next(table.pieces(ROWS, k), np.empty(0)) for k in range(4)]
        check_columns(self.path, table.name, **dict(zip("0123", first, strict=True)))
        rows = min(len(column) for column in first)
        order = guess_order(np.stack([column[:rows] for column in first], axis=1)) if rows else "txyp"
        if order is None:
            raise RecordingError(
                "expected columns t, x, y, p, but the last holds more than 0, 1 and -1",
                path=self.path,
                place=table.name,
                remedy="save them as t, x, y and p in a .npz file",
            )
        if order != "txyp":
            self.warn(f"the columns have no names; taken as {', '.join(order)} by their values")
        return {role: order.index(role) for role in "txyp"}, ""

    def _check(self) -> None:
        for role, column in self._columns.items():
            dtype, key = column.dtype, self._keys[role]
            piece = np.empty(0, dtype)[key] if dtype.names else np.empty((0, *column.shape[1:]), dtype)
            if key is not None and not dtype.names:
                piece = piece[:, 0]
            check_columns(self.path, column.name, **{role: piece})
        lengths = {role: len(column) for role, column in self._columns.items()}
        if len(set(lengths.values())) > 1:
            found = ", ".join(f"{role} {length:,}" for role, length in lengths.items())
            self.warn(f"the columns differ in length ({found}); read as far as the shortest goes")


def _find_table(path: Path, arrays: dict[str, NumpyArray]) -> NumpyArray:
    """The first array of records, or of four columns."""
    for array in arrays.values():
        if array.dtype.names and len(array.shape) == 1:
            return array
        if len(array.shape) == 2 and array.shape[1] == 4:
            return array
    found = ", ".join(f"{a.name or 'one array'} {a.dtype} {a.shape}" for a in list(arrays.values())[:8])
    raise RecordingError(
        f"expected arrays t, x, y and p, records of these, or an array of four columns; got {found}",
        path=path,
        remedy="rename or stack them",
    )


def _find_sensor(arrays: dict[str, NumpyArray]) -> tuple[int, int] | None:
    """The sensor that small arrays tell: `width` and `height`, or `sensor` as the two of them."""
    numbers = {
        name: arrays[name].small_integers()
        for name in ("width", "height", "sensor", "sensor_size")
        if name in arrays
    }
    sides = numbers.get("width", []) + numbers.get("height", [])
    if len(sides) != 2:
        sides = numbers.get("sensor") or numbers.get("sensor_size", [])
    return (sides[0], sides[1]) if len(sides) == 2 and all(0 < side <= 65536 for side in sides) else None
