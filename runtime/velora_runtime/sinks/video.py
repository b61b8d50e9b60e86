"""An MP4 of what both cameras showed, with the label below, by PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np

from velora_edge.errors import InputError
from velora_edge.vision.overlay import Overlay
from velora_runtime.buffers.free_list import FreeList
from velora_runtime.sinks.base import Seen, Sink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_runtime.sinks.base import SinkContext

TICKS = 90_000
"""A second, in the file's units of time."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """A pair with a copy of its event frame."""

    seen: Seen
    event: NDArray[np.uint8]


class VideoSink(Sink):
    """Writes under a temporary name and gives the file its own when it is complete.

    Args:
        target: the file, .mp4.
        context: sizes of the pictures.

    Raises:
        InputError: if it cannot be written.
    """

    name = "video"
    room = 16

    def __init__(self, target: str, context: SinkContext) -> None:
        self._path = Path(target)
        self._part = self._path.with_name(f".{self._path.name}.part")
        self._overlay = Overlay(context.rgb_hw, context.event_hw)
        shape = (*(context.event_hw or (0, 0)), 3)
        self._copies: FreeList[NDArray[np.uint8]] = FreeList(lambda: np.zeros(shape, np.uint8))
        self._first_us: int | None = None
        self._last_pts = -1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(str(self._part), "w", format="mp4")
        except (OSError, av.error.FFmpegError) as error:
            raise _cannot_write(target, error) from error
        self._stream = self._add_stream()

    def take(self, seen: Seen) -> _Scene:
        """The pair with a copy of its event frame."""
        copy = self._copies.take()
        if seen.pair.event is not None:
            np.copyto(copy, seen.pair.event.image)
        return _Scene(seen, copy)

    def write(self, item: _Scene) -> None:
        """Draw the pair and encode it at its own time."""
        pair = item.seen.pair
        rgb = None if pair.rgb is None else pair.rgb.image
        canvas = self._overlay.draw(rgb, None if pair.event is None else item.event, *_words(item.seen))
        self._copies.give(item.event)
        frame = av.VideoFrame.from_ndarray(canvas, format="rgb24")
        self._first_us = pair.t_us if self._first_us is None else self._first_us
        frame.pts = self._last_pts = max(
            (pair.t_us - self._first_us) * TICKS // 1_000_000, self._last_pts + 1
        )
        frame.time_base = Fraction(1, TICKS)
        self._encode(frame)

    def discard(self, item: _Scene) -> None:
        """Give the copy back."""
        self._copies.give(item.event)

    def close(self) -> None:
        """Finish the file and give it its name; one without a picture, or unfinished, is removed."""
        try:
            if self._last_pts >= 0:
                self._encode(None)
            self._container.close()
            if self._last_pts >= 0:
                self._part.replace(self._path)
        except (OSError, av.error.FFmpegError) as error:
            raise _cannot_write(self._path, error) from error
        finally:
            self._part.unlink(missing_ok=True)

    def _encode(self, frame: av.VideoFrame | None) -> None:
        try:
            self._container.mux(self._stream.encode(frame))
        except (OSError, av.error.FFmpegError) as error:
            raise _cannot_write(self._path, error) from error

    def _add_stream(self) -> Any:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        options = {"preset": "veryfast", "crf": "23", "bf": "0"} if codec == "libx264" else {}
        stream: Any = self._container.add_stream(codec, rate=30, options=options)
        height, width = self._overlay.canvas.shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        return stream


def _cannot_write(path: object, error: Exception) -> InputError:
    reason = getattr(error, "strerror", None) or str(error)
    return InputError(
        f"cannot be written: {reason}", path=str(path), remedy="choose another place with --video"
    )


def _words(seen: Seen) -> tuple[str, float | None, str]:
    """Label (the decided one in a run that decides), score and details."""
    seconds = f"{seen.pair.t_us / 1e6:.3f} s"
    prediction = seen.prediction
    if prediction is None:
        return f"waiting for {seen.missing} more", None, seconds
    stages = "  ".join(f"{stage} {value:.1f}" for stage, value in prediction.latency_ms.items())
    told = seen.decided or prediction
    return told.label, told.score, f"{seconds}  {prediction.events} events  {stages} ms"
