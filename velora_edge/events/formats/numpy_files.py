"""Reader of events in NumPy files, piece by piece: records or four columns in .npy, or in .npz archives."""

from __future__ import annotations

import io
import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ColumnReader
from velora_edge.events.formats.columns import check_columns, guess_order, match_names, unit_in_name
from velora_edge.events.seek_index import find_row

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

    from velora_edge.events.formats.arrays import Columns


_READ_BYTES = 1 << 18
_LONGEST_HEADER = 1 << 16
_LARGEST_RECORD = 1 << 12
_MOST_MEMBERS = 256
_DAMAGE = (ValueError, EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)


class NumpyArray:
    """An array in a file.

    Args:
        path: of the file, for errors.
        name: of the array in it; empty for an array that is the whole file.
        open_stream: opens the array's bytes anew.

    Attributes:
        is_seekable: any of its rows can be read without reading those before it.

    Raises:
        RecordingError: if it holds Python objects, or its header is damaged.
    """

    def __init__(self, path: Path, name: str, open_stream: Callable[[], BinaryIO]) -> None:
        self.path, self.name, self._open = path, name, open_stream
        self.is_seekable = not name
        try:
            with open_stream() as stream:
                head = io.BytesIO(_read_fully(stream, _LONGEST_HEADER))
                self.shape, self._is_fortran, self.dtype = _read_header(head)
                self._start = head.tell()
        except Exception as error:  # NumPy's parser of headers lets Python's tokenizer's and parser's pass
            raise RecordingError(
                f"not an array of NumPy's ({_first_line(error)})",
                path=path,
                place=name,
                remedy="write it again",
            ) from error
        if self.dtype.hasobject:
            raise RecordingError(
                "an array of Python objects, which can run any code when it is loaded",
                path=path,
                place=name,
                remedy="if you trust it, load it with allow_pickle=True and save arrays t, x, y and p",
            )
        if self.dtype.itemsize > _LARGEST_RECORD:
            raise RecordingError(
                f"records of {self.dtype.itemsize:,} bytes; events take {_LARGEST_RECORD:,} at most",
                path=path,
                place=name,
                remedy="save the fields t, x, y and p alone",
            )

    def __len__(self) -> int:
        return self.shape[0] if self.shape else 0

    def pieces(self, rows: int, column: int | None = None, start: int = 0) -> Iterator[NDArray[Any]]:
        """The array's rows from `start`, so many at once, or those of one column of two-dimensional arrays.

        The last piece holds what is there, where the file is cut off or damaged.
        """
        if column is None or not self._is_fortran:
            at = self._start + start * self._width * self.dtype.itemsize
            for piece in self._read(at, len(self) - start, rows, self._width):
                yield piece if column is None else piece[:, column]
        else:
            at = self._start + (column * len(self) + start) * self.dtype.itemsize
            yield from self._read(at, len(self) - start, rows, 1)

    def small_integers(self) -> list[int]:
        """The values of an array of up to four integers; nothing of another one."""
        n = int(np.prod(self.shape, dtype=np.int64))
        if self.dtype.kind not in "iu" or n > 4:
            return []
        return [int(value) for piece in self._read(self._start, n, 4, 1) for value in piece]

    @property
    def _width(self) -> int:
        return self.shape[1] if len(self.shape) > 1 else 1

    def _read(self, at: int, n: int, rows: int, width: int) -> Iterator[NDArray[Any]]:
        row_bytes = width * self.dtype.itemsize
        if not row_bytes:
            return
        with self._open() as stream:
            try:
                if at > _READ_BYTES:
                    stream.seek(at)
                else:  # Python 3.13 no longer checks a member of an archive once it was sought in
                    _read_fully(stream, at)
            except _DAMAGE:
                return
            for start in range(0, n, rows):
                wanted = min(rows, n - start) * row_bytes
                data = _read_fully(stream, wanted)
                piece = np.frombuffer(data, self.dtype, count=len(data) // row_bytes * width)
                yield piece if len(self.shape) < 2 or width == 1 else piece.reshape(-1, width)
                if len(data) < wanted:
                    return


def open_arrays(path: Path) -> dict[str, NumpyArray]:
    """The arrays of a .npz file by their names; that of a .npy file has none.

    Raises:
        RecordingError: if there are none, or one is damaged or holds Python objects.
    """
    with path.open("rb") as file:
        is_zip = file.read(2) == b"PK"
    if not is_zip:
        return {"": NumpyArray(path, "", lambda: path.open("rb"))}
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except _DAMAGE as error:
        raise RecordingError(
            f"the .npz file is damaged or cut off ({error})", path=path, remedy="copy or write it again"
        ) from error
    if len(names) > _MOST_MEMBERS:
        raise RecordingError(
            f"an archive of {len(names):,} files; recordings have {_MOST_MEMBERS} at most",
            path=path,
            remedy="save the arrays t, x, y and p alone",
        )
    members = [name for name in names if name.endswith(".npy")]
    if not members:
        raise RecordingError(
            "a zip archive without arrays of NumPy's", path=path, remedy="check that it is a recording"
        )
    return {name.removesuffix(".npy"): NumpyArray(path, name, _member(path, name)) for name in members}


def _member(path: Path, name: str) -> Callable[[], BinaryIO]:
    def open_member() -> BinaryIO:
        with zipfile.ZipFile(path) as archive:
            return cast("BinaryIO", archive.open(name))

    return open_member


def _read_header(stream: BinaryIO) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, whether it is stored column by column, and type."""
    version = np.lib.format.read_magic(stream)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that Python 2 wrote it
        if version == (1, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(stream)
        elif version == (2, 0):
            shape, is_fortran, dtype = np.lib.format.read_array_header_2_0(stream)
        else:
            raise ValueError(f"version {version[0]}.{version[1]} of the format")
    if any(side < 0 or side > 1 << 48 for side in shape):
        raise ValueError(f"a shape of {shape}")
    return shape, is_fortran and len(shape) > 1, dtype


def _read_fully(stream: BinaryIO, n: int) -> bytes:
    """`n` bytes, or fewer where the stream ends or is damaged."""
    data = bytearray()
    while len(data) < n:
        try:
            piece = stream.read(min(n - len(data), _READ_BYTES))
        except _DAMAGE:
            break
        if not piece:
            break
        data += piece
    return bytes(data)


def _first_line(error: BaseException) -> str:
    return (str(error) or type(error).__name__).partition("\n")[0][:200]


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
