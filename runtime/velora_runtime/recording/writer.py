"""Writer of one recording: items in, files in a folder out, the video among them."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av

from velora_edge.errors import InputError
from velora_edge.preprocessing import folder as names
from velora_runtime.recording.items import AppendFile, Compressed, Edges, Picture, Words, check_room
from velora_runtime.recording.words import first_time, lead_in, time_after
from velora_runtime.sinks.jsonl import encode_line

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

    from velora_runtime.recording.items import Piece


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


SYNC_S = 2.0
"""How much a power cut may cost; a killed process loses half a second of video and nothing else."""


class RecordingWriter:
    """Writes a recording's folder. A file appears with the first piece of its kind.

    Single-threaded: whoever writes.

    Args:
        folder: made, with its parents; it may exist if it is empty.
        about: the recording's facts as far as they are known; not changed.
        open_file: makes the files that grow.

    Attributes:
        folder: where it is written.
        facts: up to date at any time.
        size: bytes written to files that grow.

    Raises:
        InputError: if the folder is not empty, or cannot be written to.
    """

    def __init__(
        self, folder: Path, about: names.Facts, open_file: Callable[[Path], AppendFile] = AppendFile
    ) -> None:
        self.folder, self._open_file = folder, open_file
        self.facts = names.Facts(
            started=_now(),
            model=about.model,
            events=None if about.events is None else dict(about.events),
            video=None if about.video is None else dict(about.video),
            counts={"event_bytes": 0, "frames": 0, "edges": 0, "predictions": 0},
        )
        self._files: dict[str, AppendFile] = {}
        self._video: VideoWriter | None = None
        self._last_words: Words | None = None
        self._last_frame_us: int | None = None
        self._gaps = self._late = 0
        self._is_timed_by_words = False
        self._synced_s = time.monotonic()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise InputError("is not empty", path=folder, remedy="record to a new folder")
            if not self.facts.claim(folder):
                raise InputError("is being recorded to", path=folder, remedy="record to a new folder")
        except OSError as error:
            raise InputError(
                f"cannot be recorded to: {error.strerror}", path=folder, remedy="choose another folder"
            ) from error

    @property
    def size(self) -> int:
        """Bytes written."""
        return sum(file.size for file in self._files.values())

    def write(self, item: Piece) -> None:
        """Add a piece.

        Raises:
            OSError: if it cannot be written; `close` then leaves what is there in a readable state.
        """
        if isinstance(item, Words):
            self._write_words(item)
        elif isinstance(item, (Picture, Compressed)):
            self._write_picture(item.restore() if isinstance(item, Compressed) else item)
        elif isinstance(item, Edges):
            self._write_edges(item)
        else:
            self._file(names.PREDICTIONS).write(encode_line(item.prediction))
            self._count("predictions", 1)
            self._reach(item.t_us)
        self._sync_now_and_then()

    def close(self, why: str, dropped: dict[str, int] | None = None) -> None:
        """End the recording; never raises for a disk that is full. A folder that nothing came to is removed.

        Args:
            why: for `why_ended`.
            dropped: pieces that came too fast, by kind.
        """
        late = {"late_frames": self._late} if self._late else {}
        self.facts.dropped = {**(dropped or {}), **late, "gaps": self._gaps}
        self.facts.ended, self.facts.why_ended = _now(), why
        self._attempt(self._reach_end)
        self._attempt(self._end_video)
        self._attempt(self._end_files)
        self._attempt(self._end_folder)

    def _write_words(self, item: Words) -> None:
        if names.EVENTS not in self._files:
            self._tell_camera("events", {"encoding": item.form.encoding, "sensor": list(item.form.sensor)})
            self._file(names.EVENTS).write(item.form.full_header())
        last = self._last_words
        if last is not None and item.number <= last.number:
            return  # written already: a recording begins with the latest piece, which may come again
        if last is None and item.place is not None:
            self._file(names.EVENTS).write(lead_in(item.form, item.place))
        elif last is not None and item.number != last.number + 1:
            self._bridge(last, item)
        self._last_words = item
        if self.facts.first_us is None or self._is_timed_by_words:
            self._reach_by(item)
        self._file(names.EVENTS).write(item.data)
        self._count("event_bytes", len(item.data))

    def _bridge(self, last: Words, item: Words) -> None:
        """Something lacks between two pieces: lead a decoder on to where the second begins."""
        self._gaps += 1
        if item.place is not None:
            after_us = time_after(last.form, last.place, last.data)
            self._file(names.EVENTS).write(lead_in(item.form, item.place, after_us))

    def _write_picture(self, item: Picture) -> None:
        if self._last_frame_us is not None and item.t_us <= self._last_frame_us:
            self._late += 1  # no pair can be made of it either
            return
        self._last_frame_us = item.t_us
        if self._video is None:
            height, width = item.image.shape[:2]
            self._tell_camera("video", {"height": height, "width": width})
            self._video = VideoWriter(self._file(names.VIDEO), (height, width))
        self._video.write(item.image, item.t_us)
        self._file(names.TIMES).write(f"{item.t_us}\n".encode())
        self._count("frames", 1)
        self._reach(item.t_us)

    def _write_edges(self, item: Edges) -> None:
        if names.TRIGGERS not in self._files:
            self._file(names.TRIGGERS).write(b"t_us,id,p\n")
        edges = item.edges
        rows = zip(edges.t_us.tolist(), edges.id.tolist(), edges.p.tolist(), strict=True)
        self._file(names.TRIGGERS).write("".join(f"{t},{i},{p}\n" for t, i, p in rows).encode())
        self._count("edges", len(edges))

    def _file(self, name: str) -> AppendFile:
        if name not in self._files:
            check_room(self.folder)
            self._files[name] = self._open_file(self.folder / name)
        return self._files[name]

    def _tell_camera(self, camera: str, found: dict[str, object]) -> None:
        """Write down what the first piece of a camera tells of it."""
        known = getattr(self.facts, camera) or {}
        setattr(self.facts, camera, {**known, **found})
        self.facts.write(self.folder)

    def _count(self, what: str, n: int) -> None:
        self.facts.counts[what] += n

    def _reach_by(self, item: Words) -> None:
        """Let words give the times where neither a frame nor a prediction has come."""
        if self._is_timed_by_words:
            self.facts.last_us = self.facts.last_us if item.t_us is None else item.t_us
            return
        first_us = first_time(item.form, item.place, item.data)
        if first_us is not None:
            self.facts.first_us = self.facts.last_us = first_us
            self._is_timed_by_words = True

    def _reach_end(self) -> None:
        last = self._last_words
        if self._is_timed_by_words and last is not None:
            reached_us = time_after(last.form, last.place, last.data)
            self.facts.last_us = self.facts.last_us if reached_us is None else reached_us

    def _reach(self, t_us: int) -> None:
        if self._is_timed_by_words:
            self._is_timed_by_words, self.facts.first_us = False, None
        self.facts.first_us = t_us if self.facts.first_us is None else self.facts.first_us
        self.facts.last_us = t_us

    def _sync_now_and_then(self) -> None:
        now_s = time.monotonic()
        if now_s - self._synced_s < SYNC_S:
            return
        self._synced_s = now_s
        check_room(self.folder)
        for file in self._files.values():
            file.sync()

    def _attempt(self, end: Callable[[], None]) -> None:
        try:
            end()
        except (OSError, ValueError, av.FFmpegError) as error:  # what is on the disk is readable as it is
            if self.facts.why_ended and "stopped" not in self.facts.why_ended:
                self.facts.why_ended = f"stopped at its end: {getattr(error, 'strerror', None) or error}"

    def _end_video(self) -> None:
        if self._video is not None:
            self._video.close()

    def _end_folder(self) -> None:
        if self._files:
            self.facts.write(self.folder)
            return
        self.facts.why_ended = "nothing came: the folder was removed"
        (self.folder / names.INFO).unlink()
        self.folder.rmdir()

    def _end_files(self) -> None:
        for name, file in self._files.items():
            if name != names.VIDEO:
                file.close()


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
