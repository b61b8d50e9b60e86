"""NumPy's arrays in files, read piece by piece: memory is bounded, and nothing is unpickled."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import BinaryIO

    from numpy.typing import NDArray

_READ_BYTES = 1 << 18
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
                self.shape, self._is_fortran, self.dtype = _read_header(stream)
                self._start = stream.tell()
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
            members = [name for name in archive.namelist() if name.endswith(".npy")]
    except _DAMAGE as error:
        raise RecordingError(
            f"the .npz file is damaged or cut off ({error})", path=path, remedy="copy or write it again"
        ) from error
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
