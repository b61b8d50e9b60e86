"""Video files made for a test."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

import av
import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

TICKS = 90_000


def write_video(path: Path, times_us: Sequence[int], hw: tuple[int, int] = (32, 48)) -> None:
    """Frames at the given times, to 1/90000 s; frame k is of the grey 10 k (modulo 250)."""
    options = {"movie_timescale": str(TICKS)} if path.suffix == ".mp4" else {}
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream("libx264", rate=30, options={"bf": "0", "crf": "1"})
        stream.height, stream.width, stream.pix_fmt = *hw, "yuv420p"
        stream.codec_context.time_base = Fraction(1, TICKS)
        for k, t_us in enumerate(times_us):
            image = np.full((*hw, 3), 10 * k % 250, np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts, frame.time_base = round(t_us * TICKS / 1e6), Fraction(1, TICKS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
