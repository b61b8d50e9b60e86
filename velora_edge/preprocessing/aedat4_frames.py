"""RGB source of an AEDAT4 recording: the frames of a DAVIS camera, on the clock of its events."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.aedat4 import read_frames
from velora_edge.events.formats.aedat4_container import Aedat4File
from velora_edge.events.registry import is_aedat4
from velora_edge.preprocessing.sources import RGBSource

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from velora_edge.datatypes import RGBFrame

_MAGIC_BYTES = 16


def holds_aedat4(text: str) -> bool:
    """Whether a user's string names an AEDAT4 file, or a camera in one (FILE#CAMERA)."""
    path = _split(text)[0]
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return is_aedat4(file.read(_MAGIC_BYTES), path)


class Aedat4Frames(RGBSource):
    """The frames of the file's first camera that took any, or of the camera that FILE#CAMERA names.

    Single-threaded: whoever iterates.

    Raises:
        RecordingError: if the file is damaged, or holds no frames of such a camera.
    """

    is_on_event_clock = True

    def __init__(self, text: str) -> None:
        self.name = text
        self.warnings: list[str] = []
        path, camera = _split(text)
        self._file = Aedat4File(path, self._warn)
        found = [stream for stream in self._file.streams.values() if stream.kind == "FRME"]
        chosen = [s for s in found if camera is None or camera in (str(s.number), s.source, s.name)]
        if not chosen:
            cameras = ", ".join(stream.source or stream.name for stream in found)
            raise RecordingError(
                "holds no frames" if camera is None else f"holds no frames of a camera {camera!r}",
                path=path,
                remedy=f"choose from {cameras}" if cameras else "give a video, or use --rgb none",
            )
        self._stream = chosen[0]
        at_opening = list(self.warnings)
        first = next(iter(self), None)
        if first is None:
            raise RecordingError("holds no frames that can be read", path=path, remedy="record it again")
        self.height, self.width = first.image.shape[:2]
        self.warnings = at_opening

    def __iter__(self) -> Iterator[RGBFrame]:
        """Frames in file order; one that is not later than the one before it is left out."""
        last_us: int | None = None
        early = 0
        for frame in read_frames(self._file, self._stream, self._warn):
            if last_us is not None and frame.t_us <= last_us:
                early += 1
                continue
            yield frame
            last_us = frame.t_us
        if early:
            self._warn(f"{early} frames that are not later than the one before were left out")

    def times_us(self) -> NDArray[np.int64]:
        """Times of all frames, int64[N], on the event clock; decodes them, which takes little time."""
        return np.array([frame.t_us for frame in self], np.int64)

    def _warn(self, sentence: str) -> None:
        if sentence not in self.warnings:
            self.warnings.append(sentence)


def _split(text: str) -> tuple[Path, str | None]:
    name, _, camera = text.rpartition("#")
    return (Path(name), camera) if name and not Path(text).exists() else (Path(text), None)
