"""Overview of a recording for a page: small pictures of both cameras, and events a second, over time.

The recording is read once, from its start, in a thread of its own. Pictures are kept as JPEGs in memory; once
they take more than `MOST_BYTES`, every second one is let go, and of what comes every second one is kept.
"""

from __future__ import annotations

import os
import threading
from bisect import bisect_right
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import cv2

from velora_edge.errors import VeloraError
from velora_edge.manifest import EventInput, RGBInput
from velora_edge.preprocessing.pairs import walk_pairs
from velora_edge.preprocessing.registry import open_event_source, open_rgb_source
from velora_edge.preprocessing.sync import SyncOptions

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from velora_edge.events.base import EventReader
    from velora_edge.preprocessing.packer import Pair
    from velora_edge.preprocessing.sources import RGBSource

LONGER_PX = 320
"""Longer side of a picture."""
QUALITY = 75
MOST_BYTES = 256 << 20
MOST_RATES = 2000
WINDOW_US = 33_333
NICENESS = 10


@dataclass(frozen=True, slots=True)
class Glimpse:
    """What both cameras showed at a time.

    Attributes:
        t_us: from the recording's first pair.
        rgb: a JPEG, or None.
        event: likewise.
    """

    t_us: int
    rgb: bytes | None
    event: bytes | None


@dataclass(frozen=True, slots=True)
class _Form:
    """See `velora_edge.preprocessing.packer.PairForm`."""

    image_size: tuple[int, int]
    event: EventInput
    rgb: RGBInput


class Overview:
    """Overview of one recording. Callable from any thread.

    Args:
        events: the event file.
        rgb: the video, or a folder that holds it; None without one.
        note: gets a line if the recording cannot be read to its end.
        most_bytes: of pictures.

    Attributes:
        trouble: why the recording could not be read to its end; None where it could, or may still be.
        first_us: time of the first pair on the event clock; None before there is one.

    Raises:
        RecordingError: if one of the files cannot be used.
    """

    def __init__(
        self, events: Path, rgb: Path | None, note: Callable[[str], None], most_bytes: int = MOST_BYTES
    ) -> None:
        self.trouble: str | None = None
        self.first_us: int | None = None
        self.is_read = False
        self._note, self._most_bytes = note, most_bytes
        self._lock, self._ended = threading.Lock(), threading.Event()
        self._glimpses: list[Glimpse] = []
        self._rates: list[tuple[int, float]] = []
        self._every = 1
        self._bytes = self._last_us = self._step_us = 0
        with ExitStack() as opened:
            reader = open_event_source(str(events))
            assert reader is not None
            opened.callback(reader.close)
            source = None if rgb is None else open_rgb_source(str(rgb))
            if source is not None:
                opened.callback(source.close)
            self.cameras = ("event",) if source is None else ("rgb", "event")
            self._opened = opened.pop_all()
        self._thread = threading.Thread(
            target=self._work, args=(reader, source), name="overview", daemon=True
        )
        self._thread.start()

    @property
    def duration_us(self) -> int:
        """From the first pair to the end of the last one that was read so far."""
        return self._last_us + self._step_us

    def times_us(self) -> list[int]:
        """Times of the pictures that are kept."""
        with self._lock:
            return [glimpse.t_us for glimpse in self._glimpses]

    def rates(self) -> list[tuple[float, float]]:
        """Seconds and events a second, at most `MOST_RATES` of them: means over even stretches."""
        with self._lock:
            rates = list(self._rates)
        n = -(-len(rates) // MOST_RATES) or 1
        parts = [rates[k : k + n] for k in range(0, len(rates), n)]
        return [(part[0][0] / 1e6, sum(rate for _, rate in part) / len(part)) for part in parts]

    def picture(self, camera: Literal["rgb", "event"], t_us: int) -> bytes | None:
        """JPEG of what a camera showed at a time, or last before it; None where there is none."""
        with self._lock:
            k = bisect_right(self._glimpses, t_us, key=lambda glimpse: glimpse.t_us) - 1
            glimpse = self._glimpses[max(k, 0)] if self._glimpses else None
        return None if glimpse is None else getattr(glimpse, camera)

    def join(self, timeout_s: float | None = None) -> None:
        """Wait until the recording is read."""
        self._thread.join(timeout_s)

    def close(self) -> None:
        """Stop reading. May be called again."""
        self._ended.set()
        self._thread.join()

    def _work(self, reader: EventReader, rgb: RGBSource | None) -> None:
        with suppress(
            OSError, AttributeError
        ):  # a run in the same process goes first, where threads can yield
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
        try:
            with self._opened:
                self._read(reader, rgb)
        except (VeloraError, OSError) as error:
            self.trouble = str(error)
            self._note(f"the recording is read up to {self._last_us / 1e6:.1f} s: {error}")
        self.is_read = True

    def _read(self, reader: EventReader, rgb: RGBSource | None) -> None:
        seen_hw = (reader.height, reader.width) if rgb is None else (rgb.height, rgb.width)
        longer = max(seen_hw)
        size = (max(seen_hw[0] * LONGER_PX // longer, 1), max(seen_hw[1] * LONGER_PX // longer, 1))
        form = _Form(size, EventInput(window_us=WINDOW_US, fit="letterbox"), RGBInput(fit="letterbox"))
        for k, pair in enumerate(walk_pairs(reader, rgb, form, SyncOptions())):
            if self._ended.is_set():
                return
            self._take(k, pair)

    def _take(self, k: int, pair: Pair) -> None:
        frames = pair.frames
        if self.first_us is None:
            self.first_us = frames.t_us
        t_us = frames.t_us - self.first_us
        event = frames.event
        rate = 0.0 if event is None else event.events * 1e6 / max(event.t1_us - event.t0_us, 1)
        glimpse = None
        if k % self._every == 0:
            glimpse = Glimpse(
                t_us,
                None if frames.rgb is None else compress_small(pair.rgb_image),
                None if event is None else compress_small(pair.event_image),
            )
        with self._lock:
            self._step_us, self._last_us = t_us - self._last_us, t_us
            self._rates.append((t_us, rate))
            if glimpse is not None:
                self._keep(glimpse)

    def _keep(self, glimpse: Glimpse) -> None:
        self._glimpses.append(glimpse)
        self._bytes += _n_bytes(glimpse)
        while self._bytes > self._most_bytes and len(self._glimpses) > 1:
            self._every *= 2
            self._glimpses = self._glimpses[::2]
            self._bytes = sum(map(_n_bytes, self._glimpses))


def compress_small(image: NDArray[np.uint8]) -> bytes:
    """A JPEG of a picture as it is, uint8[H, W, 3] RGB."""
    bgr = cv2.cvtColor(image, cv2.COLOR_RGB2BGR)
    return cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])[1].tobytes()


def _n_bytes(glimpse: Glimpse) -> int:
    return len(glimpse.rgb or b"") + len(glimpse.event or b"")
