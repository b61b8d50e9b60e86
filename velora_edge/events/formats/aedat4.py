"""Reader of AEDAT4 recordings of iniVation's cameras: events, triggers, and a DAVIS camera's frames."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch, RGBFrame, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.aedat4_container import Aedat4File, Aedat4Stream
from velora_edge.events.formats.arrays import ArrayReader, measure_sensor

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.formats.aedat4_container import Table


# Schema: gitlab.com/inivation/dv/dv-processing, include/dv-processing/data. Fields by their numbers.
_FRAME_TIME, _EXPOSURE_START, _EXPOSURE_END, _FORMAT, _WIDTH, _HEIGHT = 0, 3, 4, 5, 6, 7
_PIXELS, _EXPOSURE = 10, 11


def read_frames(file: Aedat4File, stream: Aedat4Stream, warn: Callable[[str], None]) -> Iterator[RGBFrame]:
    """The frames of a stream, uint8[H, W, 3] RGB, in file order, timed at mid-exposure on the events' clock.

    Grey frames get three equal channels, 16-bit ones keep their upper 8 bits. Damaged frames are left out and
    told; `seq` counts them, so there is a gap.

    Args:
        file: the recording.
        stream: one of its streams of frames.
        warn: told what is wrong with them, one sentence at a time.
    """
    for seq, packet in enumerate(file.packets(stream.number, "FRME")):
        frame = _read_frame(packet, seq, warn)
        if frame is not None:
            yield frame


def _read_frame(packet: Table, seq: int, warn: Callable[[str], None]) -> RGBFrame | None:
    try:
        return RGBFrame(_image(packet), _mid_exposure_us(packet), seq)
    except RecordingError as error:
        warn(f"frame {seq} was left out ({error.problem})")
        return None


def _mid_exposure_us(frame: Table) -> int:
    """Older files give start and end of the exposure, newer ones its start and its length."""
    start, end = frame.number(_EXPOSURE_START, "q"), frame.number(_EXPOSURE_END, "q")
    if 0 < start <= end:
        return (start + end) // 2
    return frame.number(_FRAME_TIME, "q") + max(frame.number(_EXPOSURE, "q"), 0) // 2


def _image(frame: Table) -> NDArray[np.uint8]:
    """The pixels as RGB; the format is OpenCV's type: 3 bits for the depth, then the channels less one."""
    code, width, height = frame.number(_FORMAT, "b"), frame.number(_WIDTH, "h"), frame.number(_HEIGHT, "h")
    depth, channels = code & 7, (code >> 3) + 1
    if depth not in (0, 2) or channels not in (1, 3, 4):
        raise RecordingError(f"expected 8- or 16-bit pixels of 1, 3 or 4 channels, got OpenCV type {code}")
    pixels = frame.array(_PIXELS, np.dtype(np.uint8))
    if depth == 2:
        pixels = pixels[1::2]
    if width <= 0 or height <= 0 or len(pixels) != width * height * channels:
        raise RecordingError(
            f"expected {width}x{height} pixels of {channels} channels, got {len(pixels)} values"
        )
    image = pixels.reshape(height, width, channels)
    if channels == 1:
        return np.repeat(image, 3, axis=2)
    return np.ascontiguousarray(image[:, :, 2::-1])


# Schemas: gitlab.com/inivation/dv/dv-processing, include/dv-processing/data. Fields by their numbers.
_EVENT = np.dtype(
    {
        "names": ["t", "x", "y", "p"],
        "formats": ["<i8", "<u2", "<u2", "u1"],
        "offsets": [0, 8, 10, 12],
        "itemsize": 16,
    }
)
_TIMESTAMP, _KIND = 0, 1
_ELEMENTS = 0

# Type of trigger: input and edge. 0 is the external signal, 1 the camera's own generator; a pulse rises.
_EDGES = {1: (0, 1), 2: (0, 0), 3: (0, 1), 4: (1, 1), 5: (1, 0)}
_INPUTS = np.array([_EDGES.get(kind, (0, 0))[0] for kind in range(6)], np.uint8)
_POLARITIES = np.array([_EDGES.get(kind, (0, 0))[1] for kind in range(6)], np.uint8)


class Aedat4Reader(ArrayReader):
    """An AEDAT4 file.

    Args:
        path: the file.
        sensor: width and height, before what the file tells.
        part: which camera, where there are several: the number or the name of a stream of events, or its
            camera's name.

    Raises:
        RecordingError: if the header is damaged, or there is no such stream of events.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None, part: str | None = None) -> None:
        self.path, self.warnings = path, []
        self._file = Aedat4File(path, self.warn)
        self._stream = self._choose(part)
        warnings = self.warnings
        super().__init__(path, "AEDAT4", sensor or self._stream.sensor or (0, 0))
        self.warnings = warnings
        if not self.width:
            measure_sensor(self)

    def batches(self) -> Iterator[EventBatch]:
        """The events packet by packet."""
        return self._batches(None)

    def batches_from(self, t_us: int) -> Iterator[EventBatch]:
        """The events from the packet that the file's table of contents gives for `t_us`."""
        before, at = self._file.find_packet(self._stream.number, t_us)
        if before is not None:
            # The table is believed only if the packet before ends before the time.
            last = next(self._batches(before), EventBatch.empty())
            at = at if len(last) and int(last.t_us.max()) < t_us else None
        return self._batches(at)

    def _batches(self, at: int | None) -> Iterator[EventBatch]:
        for packet in self._file.packets(self._stream.number, "EVTS", at):
            events = self._events(packet)
            self.done = self._file.done
            yield EventBatch(
                events["t"].astype(np.int64),
                events["x"].astype(np.uint16),
                events["y"].astype(np.uint16),
                (events["p"] != 0).astype(np.uint8),
            )
        self.done = self._file.done

    def triggers(self) -> TriggerBatch:
        """Edges of the external signal (id 0) and of the camera's generator (id 1), and nothing else."""
        stream = self._beside("TRIG")
        if stream is None:
            return TriggerBatch.empty()
        return TriggerBatch.concatenate(
            [self._edges(packet) for packet in self._file.packets(stream.number, "TRIG")]
        )

    @property
    def has_frames(self) -> bool:
        """Whether the camera took frames as well."""
        return self._beside("FRME") is not None

    def frames(self) -> Iterator[RGBFrame]:
        """The camera's frames, see `read_frames`; none where it took none."""
        stream = self._beside("FRME")
        return iter(()) if stream is None else read_frames(self._file, stream, self.warn)

    def _events(self, packet: Table) -> NDArray[np.void]:
        try:
            return packet.array(_ELEMENTS, _EVENT)
        except RecordingError as error:
            self.warn(f"a packet of events was left out ({error.problem})")
            return np.empty(0, _EVENT)

    def _edges(self, packet: Table) -> TriggerBatch:
        """The packet's triggers that are edges."""
        parts = []
        try:
            for t_us, kinds in packet.columns(_ELEMENTS, {_TIMESTAMP: "q", _KIND: "b"}):
                is_edge = np.isin(kinds, list(_EDGES))
                found = kinds[is_edge]
                parts.append(TriggerBatch(t_us[is_edge], _INPUTS[found], _POLARITIES[found]))
        except RecordingError as error:
            self.warn(f"a packet of triggers was left out ({error.problem})")
            return TriggerBatch.empty()
        return TriggerBatch.concatenate(parts)

    def _choose(self, part: str | None) -> Aedat4Stream:
        found = [stream for stream in self._file.streams.values() if stream.kind == "EVTS"]
        listed = ", ".join(f"{stream.number} ({stream.source or stream.name})" for stream in found)
        if not found:
            kinds = ", ".join(stream.kind or "?" for stream in self._file.streams.values())
            raise RecordingError(
                f"expected a stream of events, got {kinds}", path=self.path, remedy="record events"
            )
        if part is None:
            if len(found) > 1:
                self.warn(f"the file has {len(found)} streams of events, {listed}; the first is taken")
            return found[0]
        for stream in found:
            if part in (str(stream.number), stream.source, stream.name):
                return stream
        raise RecordingError(
            f"there is no stream of events {part!r} in the file",
            path=self.path,
            remedy=f"choose from {listed}",
        )

    def _beside(self, kind: str) -> Aedat4Stream | None:
        """The same camera's stream of another kind."""
        return next(
            (s for s in self._file.streams.values() if s.kind == kind and s.source == self._stream.source),
            None,
        )


def refuse_other_aedat(path: Path, *, sensor: tuple[int, int] | None = None) -> ArrayReader:
    """Refuse AEDAT 1 and 3, which are not read here.

    Raises:
        RecordingError: always.
    """
    with path.open("rb") as file:
        version = file.read(14)[9:12].decode("ascii", "replace")
    raise RecordingError(
        f"AEDAT {version} is not read; AEDAT 2.0 and AEDAT 4 are",
        path=path,
        remedy="convert it to AEDAT 4, as iniVation's DV does",
    )
