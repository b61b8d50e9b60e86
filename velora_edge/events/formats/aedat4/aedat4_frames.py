"""The frames of an AEDAT4 recording: a DAVIS camera's pictures, on the clock of its events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import RGBFrame
from velora_edge.errors import RecordingError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

    from velora_edge.events.formats.aedat4.aedat4_container import Aedat4File, Aedat4Stream
    from velora_edge.events.formats.aedat4.flatbuffer import Table

# Schema: gitlab.com/inivation/dv/dv-processing, include/dv-processing/data. Fields by their numbers.
_TIMESTAMP, _EXPOSURE_START, _EXPOSURE_END, _FORMAT, _WIDTH, _HEIGHT = 0, 3, 4, 5, 6, 7
_PIXELS, _EXPOSURE = 10, 11


def read_frames(file: Aedat4File, stream: Aedat4Stream, warn: Callable[[str], None]) -> Iterator[RGBFrame]:
    """The frames of a stream, uint8[H, W, 3] RGB, in file order, timed at mid-exposure on the events' clock.

    Grey frames get three equal channels, 16-bit ones keep their upper 8 bits. Damaged frames are left out and
    told; `seq` counts them, so there is a gap.

    Args:
        file: the recording.
        stream: one of its streams of frames.
        warn: told what is wrong with them, one sentence at a time.
    """
    for seq, packet in enumerate(file.packets(stream.number, "FRME")):
        frame = _read_frame(packet, seq, warn)
        if frame is not None:
            yield frame


def _read_frame(packet: Table, seq: int, warn: Callable[[str], None]) -> RGBFrame | None:
    try:
        return RGBFrame(_image(packet), _mid_exposure_us(packet), seq)
    except RecordingError as error:
        warn(f"frame {seq} was left out ({error.problem})")
        return None


def _mid_exposure_us(frame: Table) -> int:
    """Older files give start and end of the exposure, newer ones its start and its length."""
    start, end = frame.number(_EXPOSURE_START, "q"), frame.number(_EXPOSURE_END, "q")
    if 0 < start <= end:
        return (start + end) // 2
    return frame.number(_TIMESTAMP, "q") + max(frame.number(_EXPOSURE, "q"), 0) // 2


def _image(frame: Table) -> NDArray[np.uint8]:
    """The pixels as RGB; the format is OpenCV's type: 3 bits for the depth, then the channels less one."""
    code, width, height = frame.number(_FORMAT, "b"), frame.number(_WIDTH, "h"), frame.number(_HEIGHT, "h")
    depth, channels = code & 7, (code >> 3) + 1
    if depth not in (0, 2) or channels not in (1, 3, 4):
        raise RecordingError(f"expected 8- or 16-bit pixels of 1, 3 or 4 channels, got OpenCV type {code}")
    pixels = frame.array(_PIXELS, np.dtype(np.uint8))
    if depth == 2:
        pixels = pixels[1::2]
    if width <= 0 or height <= 0 or len(pixels) != width * height * channels:
        raise RecordingError(
            f"expected {width}x{height} pixels of {channels} channels, got {len(pixels)} values"
        )
    image = pixels.reshape(height, width, channels)
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, 2::-1])
