"""The RGB camera of a recording's folder: its video, with the times that its timestamps.txt gives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.preprocessing.sources.base import RGBSource
from velora_edge.preprocessing.sources.folder import TIMES, VIDEO, read_recording
from velora_edge.preprocessing.sources.video_file import VideoFile

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from velora_edge.datatypes import RGBFrame


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
