"""Resize, crop and colour conversion of pictures, the same in training and in the runtime."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numba import njit

from velora_edge.datatypes import fit
from velora_edge.limits import check_picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_edge.datatypes import Fit, FitMode, Resample


def decode_picture(data: bytes) -> NDArray[np.uint8] | None:
    """The picture in an image file's bytes (PNG, JPEG, BMP, TIFF, WebP), or None if they hold none.

    Returns:
        uint8[H, W, 3], RGB; grey is repeated, 16 bits are scaled to 8, alpha is left out.

    Raises:
        ValueError: if it is larger than pictures are, or of a type or a number of channels that is not read.
    """
    size = picture_size(data)
    if size is None:
        return None
    check_picture(*size, len(data))
    level = _set_log_level(SILENT)  # the caller tells, in one line
    try:
        decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        _set_log_level(level)
    return None if decoded is None else bgr_to_rgb(decoded)


SILENT = 0
"""OpenCV's LOG_LEVEL_SILENT."""


def _set_log_level(level: int) -> int:
    """Set what OpenCV logs; the level before. OpenCV 4, as JetPack has it, keeps the function in its root."""
    setter = getattr(cv2, "setLogLevel", None) or cv2.utils.logging.setLogLevel
    return int(setter(level))


def picture_size(data: bytes) -> tuple[int, int] | None:
    """Width and height that a picture's header announces, None where it is none of the kinds that are read.

    Layouts: PNG (w3.org/TR/png), JPEG (ITU-T T.81, B.2), BMP (Microsoft), TIFF 6.0, WebP (RFC 9649).
    """
    try:
        if data.startswith(b"\x89PNG\r\n\x1a\n") and data[12:16] == b"IHDR":
            return _png_size(data)
        if data.startswith(b"\xff\xd8"):
            return _jpeg_size(data)
        if data.startswith(b"BM"):
            is_old = data[14:18] == b"\x0c\0\0\0"
            width, height = struct.unpack_from("<HH" if is_old else "<ii", data, 18)
            return abs(width), abs(height)
        if data.startswith((b"II*\0", b"MM\0*")):
            return _tiff_size(data, "<" if data[:1] == b"I" else ">")
        if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
            return _webp_size(data)
    except (struct.error, IndexError):
        pass
    return None


def _png_size(data: bytes) -> tuple[int, int] | None:
    """None where a chunk announces more than is there: OpenCV would make room for it."""
    at = 8
    while at < len(data) and data[at + 4 : at + 8] != b"IEND":
        at += 12 + struct.unpack_from(">I", data, at)[0]
    return struct.unpack_from(">II", data, 16) if at < len(data) else None


def _jpeg_size(data: bytes) -> tuple[int, int] | None:
    at = 2
    while data[at : at + 1] == b"\xff":
        code = data[at + 1]
        if code == 0xFF:  # padding
            at += 1
        elif 0xC0 <= code <= 0xCF and code not in (0xC4, 0xC8, 0xCC):
            height, width = struct.unpack_from(">HH", data, at + 5)
            return width, height
        else:
            at += 2 + struct.unpack_from(">H", data, at + 2)[0]
    return None


def _tiff_size(data: bytes, order: str) -> tuple[int, int] | None:
    """The larger of the picture and its tiles, for a tile is unpacked whole."""
    at = struct.unpack_from(order + "I", data, 4)[0]
    found = {256: 0, 257: 0, 322: 0, 323: 0}
    for entry in range(struct.unpack_from(order + "H", data, at)[0]):
        tag, kind = struct.unpack_from(order + "HH", data, at + 2 + 12 * entry)
        if tag in found:
            found[tag] = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, at + 10 + 12 * entry)[
                0
            ]
    size = max(found[256], found[322]), max(found[257], found[323])
    return size if all(size) else None


def _webp_size(data: bytes) -> tuple[int, int] | None:
    kind = data[12:16]
    if kind == b"VP8X":
        return 1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little")
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    return None


def bgr_to_rgb(picture: NDArray[Any]) -> NDArray[np.uint8]:
    """A picture as OpenCV reads it, as RGB.

    Args:
        picture: uint8 or uint16; [H, W] grey, [H, W, 3] BGR or [H, W, 4] BGRA; not modified.

    Returns:
        uint8[H, W, 3], RGB; a new array.

    Raises:
        ValueError: for any other type or number of channels.
    """
    if picture.dtype == np.uint16:
        picture = (picture >> 8).astype(np.uint8)
    channels = picture.shape[2] if picture.ndim == 3 else 1
    codes = {1: cv2.COLOR_GRAY2RGB, 3: cv2.COLOR_BGR2RGB, 4: cv2.COLOR_BGRA2RGB}
    if picture.dtype != np.uint8 or channels not in codes:
        raise ValueError(
            f"expected uint8 or uint16 with 1, 3 or 4 channels, got {picture.dtype} {picture.shape}"
        )
    return np.asarray(cv2.cvtColor(picture, codes[channels]), np.uint8)


_WHOLE = 1e-6
"""Pixels by which a cut may miss a pixel's edge and still count as lying on it."""


class Resizer:
    """Lays pictures of one size onto images of another, each source pixel's centre where `geometry.fit` says.

    Shrinking averages over the area of the source that a pixel covers; enlarging interpolates linearly.
    Margins that the picture does not reach are black. Where the cut through the source runs through the
    middle of pixels, the source is first resampled linearly, at its own resolution, so that it does not.

    Single-threaded: it reuses an intermediate picture.

    Args:
        source_hw: height and width of the pictures, pixels.
        target_hw: height and width of the images, pixels.
        mode: crop, letterbox or stretch; see `velora_edge.datatypes.fit`.
        resample: `area` as above; `bilinear` gives Pillow's `Image.resize` with its bilinear filter, to the
            last bit: what torchvision's Resize makes of a picture that Pillow read. (Where an image is wider
            than its picture, some versions of Pillow begin with the columns, and differ by one level.)
    """

    def __init__(
        self,
        source_hw: tuple[int, int],
        target_hw: tuple[int, int],
        mode: FitMode,
        resample: Resample = "area",
    ) -> None:
        self.source_hw, self.target_hw = source_hw, target_hw
        to = fit(source_hw, target_hw, mode)
        self._bilinear = _Bilinear(source_hw, target_hw, to) if resample == "bilinear" else None
        self._rows = _Cut(source_hw[0], target_hw[0], to.scale_y, to.offset_y)
        self._columns = _Cut(source_hw[1], target_hw[1], to.scale_x, to.offset_x)
        self._interpolation = cv2.INTER_AREA if max(to.scale_x, to.scale_y) <= 1 else cv2.INTER_LINEAR
        self._between: NDArray[np.uint8] | None = None
        if not (self._rows.is_inside and self._columns.is_inside):
            self._between = np.zeros((self._rows.pixels, self._columns.pixels, 3), np.uint8)

    def resize_into(self, picture: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
        """Write the picture at the model's size to the caller's array.

        Args:
            picture: uint8[H, W, 3] of `source_hw`; not modified.
            image: uint8[H, W, 3] of `target_hw`, contiguous.

        Raises:
            ValueError: if one of the two has another shape or type.
        """
        _check("picture", picture, self.source_hw)
        _check("image", image, self.target_hw)
        if self._bilinear is not None:
            self._bilinear.resize_into(picture, image)
            return
        size = (self.target_hw[1], self.target_hw[0])
        cv2.resize(self._part(picture), size, image, interpolation=self._interpolation)

    def _part(self, picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """The part of the picture that fills the image: a view, or the intermediate picture."""
        rows, columns, between = self._rows, self._columns, self._between
        if between is None:
            return picture[
                rows.first : rows.first + rows.pixels, columns.first : columns.first + columns.pixels
            ]
        if rows.is_whole and columns.is_whole:
            y, x = rows.place, columns.place
            between[y : y + rows.inside, x : x + columns.inside] = picture[
                rows.first : rows.first + rows.inside, columns.first : columns.first + columns.inside
            ]
            return between
        matrix = np.array([[columns.step, 0, columns.shift], [0, rows.step, rows.shift]])
        flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
        cv2.warpAffine(picture, matrix, (columns.pixels, rows.pixels), between, flags=flags)
        return between


class _Cut:
    """One axis of the part of the source that fills the image; where it reaches beyond the source, margins.

    Attributes:
        is_whole: the cut lies on pixel edges.
        is_inside: it does so within the source: then the part is a plain view.
        pixels: that the part is long.
        first: where the cut begins in the source, or 0 where it begins before it.
        inside: pixels of the source that the cut takes.
        place: where they lie in the part.
        step: source pixels to a pixel of the part; 1 for a whole cut.
        shift: position of the part's first pixel in the source.
    """

    def __init__(self, source: int, target: int, scale: float, offset: float) -> None:
        start, end = -offset / scale, (target - offset) / scale
        self.is_whole = all(abs(edge - round(edge)) < _WHOLE for edge in (start, end))
        self.pixels = max(1, int(np.ceil(end - start - _WHOLE)))
        self.first, self.place = max(0, round(start)), max(0, -round(start))
        self.inside = min(source, round(end)) - self.first
        self.is_inside = self.is_whole and self.inside == self.pixels
        self.step = (end - start) / self.pixels
        self.shift = start + 0.5 * self.step - 0.5


_BITS = 22
"""Of the fraction in Pillow's weights; a sum of them over bytes still fits 32 bits."""


class _Bilinear:
    """Pillow's `Image.resize` with its bilinear filter (`Resample.c`, eight bits a channel).

    A target pixel is a weighted mean of the source pixels under a triangle twice as wide as itself, first
    along rows, rounded to bytes, then along columns.
    """

    def __init__(self, source_hw: tuple[int, int], target_hw: tuple[int, int], to: Fit) -> None:
        self._place_y, self._rows = _weigh(source_hw[0], target_hw[0], to.scale_y, to.offset_y)
        self._place_x, self._columns = _weigh(source_hw[1], target_hw[1], to.scale_x, to.offset_x)
        self._between = np.empty((source_hw[0], len(self._columns[0]), 3), np.uint8)

    def resize_into(self, picture: NDArray[np.uint8], image: NDArray[np.uint8]) -> None:
        rows, columns = len(self._rows[0]), len(self._columns[0])
        if image.shape[:2] != (rows, columns):
            image[:] = 0
        inside = image[self._place_y : self._place_y + rows, self._place_x : self._place_x + columns]
        _resample_rows(picture, *self._columns, self._between)
        _resample_columns(self._between, *self._rows, inside)


def _weigh(
    source: int, target: int, scale: float, offset: float
) -> tuple[int, tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Where an axis's picture begins in the image; each pixel's first source pixel and weights."""
    place = max(0, round(offset))
    pixels = target - 2 * place
    start, end = max(0.0, -offset / scale), min(float(source), (target - offset) / scale)
    step = (end - start) / pixels
    reach = max(step, 1.0)
    first = np.zeros(pixels, np.int64)
    weights = np.zeros((pixels, int(np.ceil(reach)) * 2 + 1), np.int64)
    for i in range(pixels):
        centre = start + (i + 0.5) * step
        low, high = max(0, int(centre - reach + 0.5)), min(source, int(centre + reach + 0.5))
        share = 1 - np.minimum(np.abs((np.arange(low, high) - centre + 0.5) * (1 / reach)), 1)
        first[i] = low
        weights[i, : high - low] = (0.5 + share / share.sum() * (1 << _BITS)).astype(np.int64)
    return place, (first, weights)


@njit(nogil=True, cache=True)
def _resample_rows(
    picture: NDArray[np.uint8], first: NDArray[np.int64], weights: NDArray[np.int64], out: NDArray[np.uint8]
) -> None:
    """Along x: uint8[H, W, 3] to uint8[H, len(first), 3]; weights int64[len(first), K], 0 beyond the edge."""
    last = picture.shape[1] - 1
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                total = 1 << (_BITS - 1)
                for k in range(weights.shape[1]):
                    total += weights[x, k] * picture[y, min(first[x] + k, last), c]
                out[y, x, c] = min(total >> _BITS, 255)


@njit(nogil=True, cache=True)
def _resample_columns(
    picture: NDArray[np.uint8], first: NDArray[np.int64], weights: NDArray[np.int64], out: NDArray[np.uint8]
) -> None:
    """Along y: uint8[H, W, 3] to uint8[len(first), W, 3]; weights as along x."""
    last = picture.shape[0] - 1
    for y in range(out.shape[0]):
        for x in range(out.shape[1]):
            for c in range(3):
                total = 1 << (_BITS - 1)
                for k in range(weights.shape[1]):
                    total += weights[y, k] * picture[min(first[y] + k, last), x, c]
                out[y, x, c] = min(total >> _BITS, 255)


def _check(name: str, array: NDArray[np.uint8], hw: tuple[int, int]) -> None:
    if array.shape != (*hw, 3) or array.dtype != np.uint8:
        raise ValueError(f"expected {name} uint8 {(*hw, 3)}, got {array.dtype} {array.shape}")
