"""Hot pixels: detection by event counts, and masks in files."""

from __future__ import annotations

import io
import json
import operator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import InputError
from velora_edge.files import replace_file
from velora_edge.limits import check_picture, load_json, read_text

if TYPE_CHECKING:
    from os import PathLike

    from numpy.typing import NDArray

FACTOR = 10.0
"""A hot pixel fires this many times as often as the pixels around it do..."""
LEAST_EVENTS = 20
"""... and this often at least..."""
LEAST_HZ = 5.0
"""... and at this rate."""


def find_hot_pixels(counts: NDArray[np.int64], duration_us: int) -> NDArray[np.bool_]:
    """The pixels that fire far more often than those around them.

    A pixel is hot if it has `FACTOR` times the events of the median of the 5x5 pixels about it, and more
    than `LEAST_EVENTS` and `LEAST_HZ`. An edge that moves makes its neighbours fire as well, so it is not
    taken for one; a group of up to twelve hot pixels is.

    Args:
        counts: int64[H, W], events of each pixel; not modified.
        duration_us: of the recording.
    """
    import cv2

    bordered = cv2.copyMakeBorder(counts.astype(np.float32), 2, 2, 2, 2, cv2.BORDER_REFLECT_101)
    around = cv2.medianBlur(bordered, 5)[2:-2, 2:-2]
    least = max(LEAST_EVENTS, LEAST_HZ * duration_us / 1e6)
    return np.asarray((counts > FACTOR * around) & (counts >= least), np.bool_)


def write_mask(path: str | PathLike[str], mask: NDArray[np.bool_]) -> None:
    """Keep a mask, bool[H, W]: as an array (.npy), or as a list of pixels that people can edit (.json).

    Raises:
        InputError: if the name ends in neither, or the file cannot be written.
    """
    target = Path(path)
    height, width = mask.shape
    rows, columns = np.nonzero(mask)
    pixels = [list(pixel) for pixel in zip(columns.tolist(), rows.tolist(), strict=True)]
    try:
        if target.suffix == ".npy":
            content = io.BytesIO()
            np.save(content, mask, allow_pickle=False)
            replace_file(target, content.getvalue(), mode=0o644)
        elif target.suffix == ".json":
            text = json.dumps({"sensor": [width, height], "hot_pixels": pixels}) + "\n"
            replace_file(target, text.encode(), mode=0o644)
        else:
            raise InputError("expected a name that ends in .npy or .json", path=path, remedy="change it")
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place"
        ) from error


def read_mask(path: str | PathLike[str]) -> NDArray[np.bool_]:
    """A mask, bool[H, W], that `write_mask` wrote, or any array or list of pixels of that form.

    Raises:
        InputError: if it is none.
    """
    source = Path(path)
    try:
        if source.suffix == ".npy":
            mask = np.load(source, mmap_mode="r", allow_pickle=False)
            if mask.ndim != 2 or mask.dtype.kind not in "bui":
                raise ValueError(f"a two-dimensional array of booleans, got {mask.dtype} {mask.shape}")
            return np.asarray(mask != 0, np.bool_)
        content = load_json(read_text(source))
        return _mask_of(content["sensor"], content["hot_pixels"])
    except OSError as error:
        raise InputError(f"cannot be read: {error.strerror}", path=path, remedy="check the path") from error
    except (
        ValueError,
        TypeError,
        KeyError,
        IndexError,
        OverflowError,
        EOFError,
        RecursionError,
        MemoryError,
    ) as error:
        reason = str(error).partition("\n")[0][:200]
        raise InputError(
            f"expected a mask of hot pixels ({reason})",
            path=path,
            remedy="make one with velora info RECORDING --hot-pixels",
        ) from error


def _mask_of(sensor: list[int], pixels: list[list[int]]) -> NDArray[np.bool_]:
    width, height = (int(side) for side in sensor)
    if not (0 < width <= 65536 and 0 < height <= 65536):
        raise ValueError(f"a sensor of {width}x{height}")
    check_picture(width, height)
    mask = np.zeros((height, width), np.bool_)
    for pixel in pixels:
        x, y = map(operator.index, pixel)
        if not (0 <= x < width and 0 <= y < height):
            raise ValueError(f"pixel ({x}, {y}) lies outside the sensor of {width}x{height}")
        mask[y, x] = True
    return mask
