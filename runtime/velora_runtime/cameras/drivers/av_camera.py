"""Driver of RGB cameras by PyAV: V4L2 devices, RTSP and HTTP streams."""

from __future__ import annotations

import functools
import re
import time
from collections import deque
from typing import TYPE_CHECKING, Any

import av
from av.video.reformatter import VideoReformatter

from velora_edge.errors import Address, CameraError, redact
from velora_runtime.cameras.feeds import OPEN_WAIT_S, FeedEndError, Shot

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from velora_runtime.cameras.camera_settings import RGBSettings
    from velora_runtime.cameras.feeds import ClockOf, LiveSetup

SILENCE_S = 5.0
"""A stream that gives nothing for so long is gone; PyAV cannot be asked to come back earlier."""
NO_CLOCK = {"mpjpeg", "mjpeg", "h264", "hevc", "m4v", "image2pipe"}
"""Formats without times: what the demuxer says is a count at 25 pictures a second."""
HOST_NEAR_S = 5.0
"""A V4L2 time this close to the machine's monotonic clock is of that clock."""
MOST_DAMAGED = 300
"""Pictures in a row that cannot be decoded; after these, the stream is opened anew."""


class AvCamera:
    """One stream of pictures. Single-threaded: the camera's thread.

    Args:
        name: what the user called it.
        target: what PyAV opens: an address, or an object with `read`.
        av_format: of the container; None: PyAV finds out.
        options: of the demuxer.
        is_device: times may be of the machine's own clock.

    Attributes:
        size: width and height, pixels, once it was opened.
    """

    may_be_silent = False
    comes_back = True

    def __init__(
        self,
        name: str,
        target: Any,
        av_format: str | None = None,
        options: dict[str, str] | None = None,
        *,
        is_device: bool = False,
    ) -> None:
        self.name, self.size = name, (0, 0)
        self._target, self._format, self._options, self._is_device = (
            target,
            av_format,
            options or {},
            is_device,
        )
        self._container: Any = None
        self._frames: Iterator[av.VideoFrame] = iter(())
        self._first: deque[Shot] = deque()
        # One for all pictures: a new one each costs milliseconds.
        self._reformatter = VideoReformatter()
        self._clock: ClockOf = "device"
        self._has_clock = True

    def open(self) -> None:
        """Connect, and wait for the first picture."""
        try:
            self._container = av.open(
                self.connect(),
                format=self._format,
                options=self._options,
                timeout=(OPEN_WAIT_S, SILENCE_S),
            )
            self._has_clock = self._container.format.name not in NO_CLOCK
            self._frames = self._decode()
            self._first = deque([self._read_first()])
        except (av.FFmpegError, OSError, ValueError, IndexError) as error:
            self.close()
            raise CameraError(f"cannot be opened: {_why(error)}") from error
        except BaseException:
            self.close()
            raise

    def connect(self) -> Any:
        """What PyAV is to open."""
        return self._target

    def read(self) -> Shot | None:
        """The next picture; blocks until it is there, or for `SILENCE_S`."""
        if self._first:
            return self._first.popleft()
        try:
            frame = next(self._frames, None)
        except (av.FFmpegError, OSError) as error:
            raise CameraError(f"the stream broke: {_why(error)}") from error
        if frame is None:
            raise self.ended()
        if self._has_clock and frame.pts is None:
            return None  # damaged; a time by arrival would be of another clock than all the others
        return self._shot(frame)

    def ended(self) -> CameraError | FeedEndError:
        """What the end of the stream is: something to come back from, or not."""
        return CameraError("the stream ended")

    def close(self) -> None:
        """Let go of it."""
        container, self._container = self._container, None
        self._first.clear()
        self._frames = iter(())
        if container is not None:
            container.close()

    def _read_first(self) -> Shot:
        frame = next(self._frames, None)
        if frame is None:
            raise CameraError("it gives no pictures")
        self.size = frame.width, frame.height
        self._has_clock = self._has_clock and frame.pts is not None
        t_s = None if frame.pts is None or frame.time_base is None else float(frame.pts * frame.time_base)
        is_host = self._is_device and t_s is not None and abs(t_s - time.monotonic()) < HOST_NEAR_S
        self._clock = "host" if is_host else "device"
        return self._shot(frame)

    def _decode(self) -> Iterator[av.VideoFrame]:
        stream = self._container.streams.video[0]
        stream.thread_type = (
            "SLICE"  # by frames, a picture would wait for as many that follow as there are cores
        )
        damaged = 0
        for packet in self._container.demux(stream):
            try:
                frames = packet.decode()
            except av.error.InvalidDataError as error:  # a damaged picture; the next whole one mends it
                damaged += 1
                if damaged > MOST_DAMAGED:
                    raise CameraError("nothing that comes can be decoded") from error
                continue
            for frame in frames:
                damaged = 0
                yield frame

    def _shot(self, frame: av.VideoFrame) -> Shot:
        t_us = None
        if self._has_clock and frame.pts is not None and frame.time_base is not None:
            t_us = round(frame.pts * frame.time_base * 1_000_000)
        return Shot(functools.partial(self._render, frame), t_us, self._clock)

    def _render(self, frame: av.VideoFrame) -> NDArray[np.uint8]:
        image: Any = self._reformatter.reformat(frame, format="rgb24").to_ndarray()
        return image


def open_v4l2(text: str, setup: LiveSetup) -> AvCamera:
    """A V4L2 camera, by number (`0`) or device (`/dev/video0`); the kernel's times, where it gives any."""
    device = f"/dev/video{text}" if text.isdigit() else text
    return AvCamera(text, device, "v4l2", v4l2_options(setup.settings.rgb), is_device=True)


def v4l2_options(settings: RGBSettings) -> dict[str, str]:
    """What FFmpeg's V4L2 input is asked for."""
    options = {}
    if settings.width is not None and settings.height is not None:
        options["video_size"] = f"{settings.width}x{settings.height}"
    if settings.rate_hz is not None:
        options["framerate"] = f"{settings.rate_hz:g}"
    if settings.pixel_format is not None:
        options["input_format"] = settings.pixel_format
    return options


def open_network(text: str, setup: LiveSetup) -> AvCamera:
    """An RTSP, HTTP or other network stream, with as little buffering as FFmpeg can."""
    options = {"fflags": "nobuffer", "flags": "low_delay", "probesize": "500000", "analyzeduration": "500000"}
    if re.match(r"rtsps?://", text, re.IGNORECASE):
        options |= {"rtsp_transport": setup.settings.rgb.transport, "max_delay": "200000"}
    address = Address(text)
    return AvCamera(address, address.secret, None, options)


def _why(error: BaseException) -> str:
    return redact(str(getattr(error, "strerror", None) or error or type(error).__name__))
