"""RGB source of a video file, by PyAV, with times from the file or from a recording's folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import numpy as np
from av.video.reformatter import VideoReformatter

from velora_edge.datatypes import RGBFrame
from velora_edge.errors import RecordingError
from velora_edge.limits import check_picture
from velora_edge.preprocessing.folder import TIMES, VIDEO, read_recording
from velora_edge.preprocessing.sources import RGBSource

if TYPE_CHECKING:
    from collections.abc import Iterator
    from fractions import Fraction

    from numpy.typing import NDArray


SHORT_US = 500_000
"""A file whose last frame lies further than this before its announced end was cut short."""


class VideoFile(RGBSource):
    """The first video stream of a file; times are its presentation times, from the file's zero.

    Damaged packets are passed over and told in `warnings`; so is an end in the middle of the file.

    Single-threaded: whoever iterates.

    Raises:
        RecordingError: if the file is no video, or holds no frames.
    """

    is_on_event_clock = False

    def __init__(self, path: str) -> None:
        self.name = path
        self.warnings: list[str] = []
        self._path = Path(path)
        with self._open() as container:
            stream = container.streams.video[0]
            self.height, self.width = stream.codec_context.height, stream.codec_context.width
            self._check_size()
        first = next(iter(self), None)
        if first is None:
            raise RecordingError("holds no video frames", path=path, remedy="record it again")
        self.height, self.width = first.image.shape[:2]
        self.warnings.clear()

    def _check_size(self) -> None:
        try:
            check_picture(self.width, self.height)
        except ValueError as error:
            raise RecordingError(f"announces {error}", path=self.name, remedy="record it again") from None

    def __iter__(self) -> Iterator[RGBFrame]:
        """Frames in the order of their times; one that is not later than the one before it is left out."""
        with self._open() as container:
            stream = container.streams.video[0]
            stream.thread_type = "AUTO"
            # One for all frames: frame.to_ndarray(format=...) makes one a frame, which costs milliseconds.
            reformatter = VideoReformatter()
            seq, last_us, repeated = 0, None, 0
            for frame in self._decode(container, stream):
                t_us = _microseconds(frame, last_us, stream.average_rate)
                if last_us is not None and t_us <= last_us:
                    repeated += 1
                    continue
                image: Any = reformatter.reformat(frame, format="rgb24").to_ndarray()
                yield RGBFrame(image, t_us, seq)
                seq, last_us = seq + 1, t_us
            self._warn_if_short(container, last_us)
        if repeated:
            self._warn(f"{repeated} frames without a time of their own were left out")

    def times_us(self) -> NDArray[np.int64]:
        """Presentation times of all packets, int64[N], sorted; only a file without such times is decoded."""
        times = set()
        with self._open() as container:
            stream = container.streams.video[0]
            try:
                for packet in container.demux(stream):
                    if packet.pts is not None and packet.size and not packet.is_corrupt:
                        times.add(_scale(packet.pts, packet.time_base))
            except av.error.FFmpegError as error:
                self._warn(f"cannot be read to its end: {_reason(error)}")
        return np.array(sorted(times) or [frame.t_us for frame in self], np.int64)

    def _open(self) -> Any:
        try:
            container = av.open(str(self._path))
        except (av.error.FFmpegError, OSError) as error:
            raise RecordingError(
                f"cannot be read as a video: {_reason(error)}",
                path=self.name,
                remedy="give a video that ffprobe can read",
            ) from error
        if not container.streams.video:
            container.close()
            raise RecordingError("holds no video stream", path=self.name, remedy="give a video file")
        return container

    def _decode(self, container: Any, stream: Any) -> Iterator[Any]:
        damaged = 0
        packets = container.demux(stream)
        while True:
            try:
                packet = next(packets)
            except StopIteration:
                break
            except av.error.FFmpegError as error:
                self._warn(f"cannot be read to its end: {_reason(error)}")
                break
            try:
                yield from packet.decode()
            except av.error.EOFError:
                break
            except av.error.FFmpegError:
                damaged += 1
        if damaged:
            self._warn(f"{damaged} damaged packets were passed over")

    def _warn_if_short(self, container: Any, last_us: int | None) -> None:
        """Compare the last frame with the length that the file announces (that of its longest stream)."""
        if last_us is None or container.duration is None or len(container.streams) > 1:
            return
        announced_us = container.duration + max(container.start_time or 0, 0)
        if last_us + SHORT_US < announced_us:
            self._warn(f"ends after {last_us / 1e6:.2f} s of {announced_us / 1e6:.2f} s: it was cut short")

    def _warn(self, text: str) -> None:
        if text not in self.warnings:
            self.warnings.append(text)


def _microseconds(frame: Any, last_us: int | None, rate: Fraction | None) -> int:
    """A frame's time; one without is taken to follow the frame before it at the nominal rate."""
    if frame.pts is not None:
        return _scale(frame.pts, frame.time_base)
    return 0 if last_us is None else last_us + round(1_000_000 / (rate or 30))


def _scale(pts: int, time_base: Fraction) -> int:
    """A time in microseconds, rounded to the nearest (halves up)."""
    return (2 * pts * 1_000_000 * time_base.numerator + time_base.denominator) // (2 * time_base.denominator)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class RecordedVideo(RGBSource):
    """Frame k of the video at the time in line k of timestamps.txt, on the event clock.

    A recording that was cut short has more of the one than of the other; the rest is left out and told.

    Single-threaded: whoever iterates.

    Raises:
        RecordingError: if the folder holds no video, or its times cannot be read.
    """

    is_on_event_clock = True

    def __init__(self, path: str) -> None:
        self.name = path
        recording = read_recording(path)
        self.warnings = list(recording.warnings)
        if recording.video is None:
            raise RecordingError(f"the recording holds no {VIDEO}", path=path, remedy="use --rgb none")
        self._video = VideoFile(str(recording.video))
        self.height, self.width = self._video.height, self._video.width
        self._places_us = self._video.times_us()
        times_us = recording.times_us()
        frames = min(len(times_us), len(self._places_us))
        if not frames:
            raise RecordingError(
                "holds no times", path=recording.folder / TIMES, remedy="write one line a frame"
            )
        lost = len(self._places_us) - frames
        if lost:
            self.warnings.append(f"{recording.folder / TIMES}: {lost} frames have no time and are left out")
        self._times_us = times_us[:frames]

    def __iter__(self) -> Iterator[RGBFrame]:
        """Frames with their times on the event clock."""
        for frame in self._video:
            k = int(np.searchsorted(self._places_us, frame.t_us))
            if k < len(self._times_us) and self._places_us[k] == frame.t_us:
                yield replace(frame, t_us=int(self._times_us[k]), seq=k)
        self.warnings += [warning for warning in self._video.warnings if warning not in self.warnings]

    def times_us(self) -> NDArray[np.int64]:
        """Times of all frames, int64[N], event clock."""
        return self._times_us
