"""Video sink: an MP4 of both cameras side by side with the label below, by PyAV."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import cv2
import numpy as np

from velora_edge.datatypes import fit
from velora_edge.errors import InputError
from velora_edge.files import PartFile
from velora_runtime.queues import FreeList
from velora_runtime.sinks.base import Result, Sink

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from velora_runtime.sinks.base import SinkContext


PANEL_HEIGHT = 360
STRIP_HEIGHT = 76
_FONT = cv2.FONT_HERSHEY_SIMPLEX
_BACKGROUND = (24, 26, 30)
_TEXT = (240, 240, 240)
_DIM = (150, 154, 160)
_BAR = (64, 160, 255)


class Overlay:
    """A canvas with a panel for each camera that there is, and a strip with label, score and details.

    Single-threaded: it draws on one canvas again and again.

    Args:
        rgb_hw: height and width of the RGB pictures, pixels; None for no panel.
        event_hw: the same of the event frames.

    Attributes:
        canvas: uint8[H, W, 3], RGB; both sides are even, as video codecs want them.
    """

    def __init__(self, rgb_hw: tuple[int, int] | None, event_hw: tuple[int, int] | None) -> None:
        self._rgb_width = 0 if rgb_hw is None else _panel_width(rgb_hw)
        self._event_width = 0 if event_hw is None else _panel_width(event_hw)
        width = max(self._rgb_width + self._event_width, 2)
        self._empty = np.full((PANEL_HEIGHT + STRIP_HEIGHT, width, 3), _BACKGROUND, np.uint8)
        self.canvas = self._empty.copy()

    def draw(
        self,
        rgb: NDArray[np.uint8] | None,
        event: NDArray[np.uint8] | None,
        label: str,
        score: float | None,
        details: str,
    ) -> NDArray[np.uint8]:
        """Draw one moment.

        Args:
            rgb: uint8[H, W, 3], RGB, any size; None leaves the panel dark.
            event: the same, of the event frame; its pixels stay sharp.
            label: large, above the score's bar.
            score: 0 to 1, the bar's length and a figure beside the label; None for none.
            details: small, at the bottom.

        Returns:
            The canvas, which the next call draws over.
        """
        np.copyto(self.canvas, self._empty)
        edge = self._rgb_width
        if rgb is not None and edge:
            _paste(rgb, self.canvas[:PANEL_HEIGHT, :edge], cv2.INTER_AREA)
        if event is not None and self._event_width:
            _paste(event, self.canvas[:PANEL_HEIGHT, edge:], cv2.INTER_NEAREST)
        self._write(label, score, details)
        return self.canvas

    def _write(self, label: str, score: float | None, details: str) -> None:
        canvas, width = self.canvas, self.canvas.shape[1]
        text = label if score is None else f"{label}  {score:.0%}"
        cv2.putText(canvas, text, (12, PANEL_HEIGHT + 30), _FONT, 0.8, _TEXT, 2, cv2.LINE_AA)
        if score is not None:
            end = 12 + round((width - 24) * min(max(score, 0.0), 1.0))
            canvas[PANEL_HEIGHT + 40 : PANEL_HEIGHT + 46, 12:end] = _BAR
        cv2.putText(canvas, details, (12, PANEL_HEIGHT + 66), _FONT, 0.42, _DIM, 1, cv2.LINE_AA)


def _panel_width(hw: tuple[int, int]) -> int:
    """Width of a panel of the picture's shape, even, and not so wide that it leaves no room for the other."""
    width = round(PANEL_HEIGHT * hw[1] / hw[0])
    return min(max(width, 64), 4 * PANEL_HEIGHT) // 2 * 2


def _paste(picture: NDArray[np.uint8], panel: NDArray[np.uint8], shrink: int) -> None:
    """The whole picture, as large as the panel allows, in its middle."""
    panel_hw = panel.shape[:2]
    to = fit(picture.shape[:2], (panel_hw[0], panel_hw[1]), "letterbox")
    height = min(max(1, round(picture.shape[0] * to.scale_y)), panel_hw[0])
    width = min(max(1, round(picture.shape[1] * to.scale_x)), panel_hw[1])
    y, x = (panel_hw[0] - height) // 2, (panel_hw[1] - width) // 2
    interpolation = cv2.INTER_LINEAR if to.scale_x > 1 and shrink == cv2.INTER_AREA else shrink
    panel[y : y + height, x : x + width] = cv2.resize(picture, (width, height), interpolation=interpolation)


TICKS = 90_000
"""A second, in the file's units of time."""


@dataclass(frozen=True, slots=True)
class _Scene:
    """A pair with a copy of its event frame."""

    result: Result
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
        self._overlay = Overlay(context.rgb_hw, context.event_hw)
        shape = (*(context.event_hw or (0, 0)), 3)
        self._copies: FreeList[NDArray[np.uint8]] = FreeList(lambda: np.zeros(shape, np.uint8))
        self._first_us: int | None = None
        self._last_pts = -1
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._part = PartFile(self._path)
            self._container = av.open(str(self._part.path), "w", format="mp4")
        except (OSError, av.error.FFmpegError) as error:
            raise _cannot_write(target, error) from error
        self._stream = self._add_stream()

    def take(self, result: Result) -> _Scene:
        """The pair with a copy of its event frame."""
        copy = self._copies.take()
        if result.pair.event is not None:
            np.copyto(copy, result.pair.event.image)
        return _Scene(result, copy)

    def write(self, item: _Scene) -> None:
        """Draw the pair and encode it at its own time."""
        pair = item.result.pair
        rgb = None if pair.rgb is None else pair.rgb.image
        canvas = self._overlay.draw(rgb, None if pair.event is None else item.event, *_words(item.result))
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
                self._part.commit()
        except (OSError, av.error.FFmpegError) as error:
            raise _cannot_write(self._path, error) from error
        finally:
            self._part.discard()

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


def _words(result: Result) -> tuple[str, float | None, str]:
    """Label (the decided one in a run that decides), score and details."""
    seconds = f"{result.pair.t_us / 1e6:.3f} s"
    prediction = result.prediction
    if prediction is None:
        return f"waiting for {result.missing} more", None, seconds
    stages = "  ".join(f"{stage} {value:.1f}" for stage, value in prediction.latency_ms.items())
    told = result.decided or prediction
    return told.label, told.score, f"{seconds}  {prediction.events} events  {stages} ms"
