"""Reader of Event Stream files (`.es`) of change events, of an ATIS or of colour events."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats import _es_kernels as kernels
from velora_edge.events.formats.arrays import ArrayReader
from velora_edge.events.seek_index import PlaceIndex
from velora_edge.limits import check_request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.seek_index import Place

MAGIC = b"Event Stream"
HEADER_BYTES = 20
READ_BYTES = 1 << 20
_KINDS = {kernels.DVS: "dvs", kernels.ATIS: "atis", kernels.COLOUR: "colour"}
_REFUSED = {0: "generic", 3: "asynchronous"}
_MAJOR_VERSION = 2


class EsReader(ArrayReader):
    """An Event Stream file, version 2.

    Layout (neuromorphic-paris/event_stream): "Event Stream", three bytes of version, one of type, u16 width
    and height, little endian, then events of 5 bytes, 8 with colour, whose first tells the time since the one
    before; y counts from the bottom. What each type gives: dvs, its events; atis, those of change, not those
    of exposure; colour, an event where a pixel's red + green + blue differs from that of its event before, ON
    where it grew.

    Args:
        path: the file.
        sensor: width and height, before what the header tells.

    Raises:
        RecordingError: if the header is damaged, or the type is another one.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        with path.open("rb") as file:
            head = file.read(HEADER_BYTES)
        self._kind = _check_header(path, head)
        own = int.from_bytes(head[16:18], "little"), int.from_bytes(head[18:20], "little")
        super().__init__(path, f"Event Stream ({_KINDS[self._kind]})", sensor or own)
        self._top = own[1] - 1
        self._pixels = (own[1], own[0]) if self._kind == kernels.COLOUR else (0, 0)
        check_request(path, 2 * self._pixels[0] * self._pixels[1], "the brightness of its pixels")

    def batches(self) -> Iterator[EventBatch]:
        """The events in file order."""
        return self._batches((HEADER_BYTES, 0))

    def batches_from(self, t_us: int) -> Iterator[EventBatch]:
        """The events from the place that is found for `t_us`, which is the start of a file of colours."""
        if self._kind == kernels.COLOUR:
            return self.batches()  # a polarity follows from the pixel's colour before
        index = PlaceIndex(self.path, f"ES {self._kind}", (HEADER_BYTES, 0), self._walk)
        return self._batches(index.find(t_us))

    def _walk(self, place: Place) -> Iterator[tuple[int | None, Place]]:
        for batch, after in self._decode(place):
            yield (int(batch.t_us[-1]) if len(batch) else None), after

    def _batches(self, place: Place) -> Iterator[EventBatch]:
        return (batch for batch, _ in self._decode(place))

    def _decode(self, place: Place) -> Iterator[tuple[EventBatch, Place]]:
        """Batches with the place after them: a byte, and the time of the event before it."""
        at, t_us = place
        memory = np.array([t_us, 0], np.int64)
        brightness = np.full(self._pixels, kernels.NOT_SEEN, np.int16)
        rest, size = b"", self.path.stat().st_size
        with self.path.open("rb") as file:
            file.seek(at)
            while read := file.read(READ_BYTES):
                data = rest + read
                batch, taken = self._decode_bytes(data, memory, brightness)
                at, rest = at + taken, data[taken:]
                self.done = at / size
                if taken:
                    yield batch, (at, int(memory[kernels.T_US]))
        if rest:
            self.warn(f"the file is cut off: the last {len(rest)} bytes are part of an event")
        if memory[kernels.EXPOSURES]:
            self.warn("the file holds events of exposure too, which are not read")
        if self._kind == kernels.COLOUR:
            self.warn(
                "polarity is told by a pixel's brightness; colours that leave it as it was are left out"
            )

    def _decode_bytes(
        self, data: bytes, memory: NDArray[np.int64], brightness: NDArray[np.int16]
    ) -> tuple[EventBatch, int]:
        """The whole events of some bytes, and how many bytes they take."""
        most = len(data) // kernels.EVENT_BYTES + 1
        t_us, p = np.empty(most, np.int64), np.empty(most, np.uint8)
        x, y = np.empty(most, np.uint16), np.empty(most, np.uint16)
        n, taken = kernels.decode_events(
            np.frombuffer(data, np.uint8), self._kind, self._top, memory, brightness, t_us, x, y, p
        )
        return EventBatch(t_us[:n], x[:n], y[:n], p[:n]), int(taken)


def _check_header(path: Path, head: bytes) -> int:
    """The type of the stream, a key of `_KINDS`."""
    if len(head) < HEADER_BYTES or not head.startswith(MAGIC):
        raise RecordingError(
            "expected the header of an Event Stream file", path=path, place="header", remedy="copy it again"
        )
    version, kind = ".".join(str(number) for number in head[12:15]), head[15]
    if head[12] != _MAJOR_VERSION:
        raise RecordingError(
            f"expected Event Stream version {_MAJOR_VERSION}, got {version}",
            path=path,
            place="header",
            remedy="convert it, as command_line_tools does",
        )
    if kind not in _KINDS:
        raise RecordingError(
            f"expected a stream of type dvs, atis or colour, got {_REFUSED.get(kind, f'number {kind}')}",
            path=path,
            place="header",
            remedy="only change events can be read",
        )
    if 0 in (int.from_bytes(head[16:18], "little"), int.from_bytes(head[18:20], "little")):
        raise RecordingError(
            "announces a sensor without pixels", path=path, place="header", remedy="copy it again"
        )
    return kind
