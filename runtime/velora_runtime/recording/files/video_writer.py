"""The RGB camera's video while it is recorded: an MP4 in fragments, readable wherever it ends."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from velora_runtime.recording.files.append_file import AppendFile

TICKS = 1_000_000
"""A second, in the file's units: times are kept to the microsecond."""
FRAGMENT_US = 500_000
"""What a crash may cost."""
_OPTIONS = {
    "movflags": "empty_moov+default_base_moof",
    "frag_duration": str(FRAGMENT_US),
    "flush_packets": "1",
}
_X264 = {"preset": "superfast", "tune": "zerolatency", "crf": "20", "bf": "0"}


class VideoWriter:
    """Encodes pictures as H.264 (MPEG-4 where there is no x264), each at its own time.

    Single-threaded: whoever writes.

    Args:
        file: receives the MP4; closed with it.
        hw: height and width, pixels; pictures of another size are scaled to it.
    """

    def __init__(self, file: AppendFile, hw: tuple[int, int]) -> None:
        self._file, self._hw = file, hw
        self._first_us: int | None = None
        self._last_pts = -1
        # Only `write`: what is never sought in is never rewritten.
        self._container = av.open(_Sink(file), "w", format="mp4", options=_OPTIONS)
        self._stream = self._add_stream()

    def write(self, image: NDArray[np.uint8], t_us: int) -> None:
        """Encode a picture, uint8[H, W, 3] RGB, at its time; one that is not later is moved 1 us on.

        Raises:
            OSError: if the file cannot be written.
        """
        frame = av.VideoFrame.from_ndarray(image, format="rgb24")
        if (frame.height, frame.width) != self._hw:
            frame = frame.reformat(width=self._hw[1], height=self._hw[0])
        self._first_us = t_us if self._first_us is None else self._first_us
        frame.pts = self._last_pts = max(t_us - self._first_us, self._last_pts + 1)
        frame.time_base = Fraction(1, TICKS)
        self._container.mux(self._stream.encode(frame))

    def close(self) -> None:
        """Finish the file.

        Raises:
            OSError: if its end cannot be written; what was written stays readable.
        """
        try:
            if self._last_pts >= 0:
                self._container.mux(self._stream.encode(None))
        finally:
            try:
                self._container.close()
            finally:
                self._file.close()

    def _add_stream(self) -> Any:
        codec = "libx264" if "libx264" in av.codecs_available else "mpeg4"
        stream: Any = self._container.add_stream(codec, rate=30)
        stream.height, stream.width = self._hw
        has_odd_side = self._hw[0] % 2 or self._hw[1] % 2
        stream.pix_fmt = "yuv444p" if has_odd_side and codec == "libx264" else "yuv420p"
        stream.codec_context.time_base = stream.time_base = Fraction(1, TICKS)
        stream.codec_context.gop_size = 60
        if codec == "libx264":
            stream.options = _X264
        return stream


class _Sink:
    """The one method that PyAV may call."""

    def __init__(self, file: AppendFile) -> None:
        self.write = file.write
