"""What of an HDF5 dataset is really in the file, whatever its header announces."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from pathlib import Path

DAMAGE = (OSError, RuntimeError, ValueError, TypeError, KeyError, AttributeError, OverflowError, MemoryError)
"""What h5py raises on damaged files: HDF5's own errors, and Python's where it builds types and names."""

ROWS = 1 << 17
"""Events that are read at once, where the file's chunks do not ask for more."""


def stored_chunks(dataset: Any) -> list[int]:
    """The first row of every chunk that is there, in order."""
    starts: list[int] = []
    dataset.id.chunk_iter(lambda info: starts.append(int(info.chunk_offset[0])))
    return sorted(set(starts))


def stored_rows(dataset: Any) -> int:
    """Rows up to the first one that is not stored; reading more would give zeros that nobody recorded."""
    from h5py import h5d

    rows = int(dataset.shape[0])
    layout = dataset.id.get_create_plist().get_layout()
    if layout == h5d.CHUNKED:
        chunk_rows, end = int(dataset.chunks[0]), 0
        for start in stored_chunks(dataset):
            if start > end:
                break
            end = start + chunk_rows
        return min(rows, end)
    if layout == h5d.CONTIGUOUS and not dataset.external:
        at = dataset.id.get_offset()
        if at is None:
            return 0
        row_bytes = dataset.dtype.itemsize * (int(dataset.shape[1]) if dataset.ndim > 1 else 1)
        return max(min(rows, (dataset.file.id.get_filesize() - at) // max(row_bytes, 1)), 0)
    return rows


def check_filters(path: Path, dataset: Any) -> None:
    """Nothing, if every filter of the dataset can be decoded here; imports hdf5plugin where it is needed.

    Raises:
        RecordingError: otherwise; names the filter.
    """
    from h5py import h5z

    plist = dataset.id.get_create_plist()
    for i in range(plist.get_nfilters()):
        code, _, _, name = plist.get_filter(i)
        if h5z.filter_avail(code):
            continue
        import hdf5plugin  # noqa: F401  (importing it registers its filters)

        if not h5z.filter_avail(code):
            raise RecordingError(
                f"compressed with HDF5 filter {code} ({name.decode('ascii', 'replace') or 'unnamed'}), "
                "which is not installed",
                path=path,
                place=dataset.name,
                remedy="write the file again with gzip or zstd",
            )


def first_line(error: BaseException) -> str:
    """What an error says, in one line."""
    return (str(error) or type(error).__name__).strip("'\"").partition("\n")[0][:200]
