"""Readers of binary files with events of fixed size: DAT, Prophesee's format before RAW, and N-MNIST."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import RecordingError
from velora_edge.events.formats.arrays import ArrayReader, PairReader, measure_sensor

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from velora_edge.events.seek_index import Place


EVENT_2D, EVENT_CD, EVENT_TRIGGER = 0x00, 0x0C, 0x0E
"""Types of events that a file may hold; the byte after the header tells."""
_MAX_HEADER_BYTES = 1 << 16


class DatReader(PairReader):
    """A DAT file of version 1 or 2.

    Layout (openeb, event2d.h): a header of `% key value` lines, a byte for the type of event, a byte for its
    size, then little-endian u32 pairs: t in us, which wraps after 71.6 minutes, and bit fields, least
    significant first: x 14, y 14, p 4 in version 2; x 9, y 8, p 1 in version 1; p 4, unused 22, id 6 in
    triggers.

    Args:
        path: the file.
        sensor: width and height, before what the header tells; without both, what the events reach.

    Raises:
        RecordingError: if the header is not a DAT file's.
    """

    pair_type, time_column, kind = "<u4", 0, "DAT"

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        with path.open("rb") as file:
            head = file.read(_MAX_HEADER_BYTES)
        keys, at = read_header(head)
        self._type = _check_type(path, head, at)
        version = keys.get("version", "2").partition(".")[0]
        if version not in ("1", "2"):
            raise RecordingError(
                f"expected DAT version 1 or 2, got {version}", path=path, place="header", remedy="convert it"
            )
        self._bits = (9, 8) if version == "1" else (14, 14)
        super().__init__(path, f"DAT v{version}", sensor or _size(keys) or (0, 0), at + 2)
        if not self.width and self._type == EVENT_TRIGGER:
            self.width, self.height = 1, 1
        if not self.width:
            measure_sensor(self)

    def decode(self, place: Place) -> Iterator[EventBatch]:
        """The events from a place on, in file order; none of a file of triggers."""
        if self._type == EVENT_TRIGGER:
            self.warn("the file holds external triggers and no events")
            return
        x_bits, y_bits = self._bits
        for t_us, words, _ in self.read_pairs(place):
            yield EventBatch(
                t_us,
                (words & ((1 << x_bits) - 1)).astype(np.uint16),
                (words >> x_bits & ((1 << y_bits) - 1)).astype(np.uint16),
                (words >> (x_bits + y_bits) & (15 if y_bits == 14 else 1) != 0).astype(np.uint8),
            )

    def triggers(self) -> TriggerBatch:
        """All edges, in a file of triggers; DAT keeps those in a file of their own."""
        if self._type != EVENT_TRIGGER:
            return TriggerBatch.empty()
        edges = [
            TriggerBatch(t_us, (words >> 26).astype(np.uint8), (words & 1).astype(np.uint8))
            for t_us, words, _ in self.read_pairs(self.first)
        ]
        return TriggerBatch.concatenate(edges)


def read_header(head: bytes) -> tuple[dict[str, str], int]:
    """The header's keys, in lower case, with their values, and the number of bytes that it takes."""
    keys: dict[str, str] = {}
    at = 0
    while head[at : at + 1] == b"%" and (end := head.find(b"\n", at)) >= 0:
        key, _, value = head[at + 1 : end].decode("latin-1").strip().partition(" ")
        keys[key.lower()] = value.strip()
        at = end + 1
    return keys, at


def _check_type(path: Path, head: bytes, at: int) -> int:
    if len(head) < at + 2:
        raise RecordingError(
            "the DAT file ends with its header",
            path=path,
            place=f"byte {at}",
            remedy="copy or record it again",
        )
    event_type, size = head[at], head[at + 1]
    if event_type not in (EVENT_2D, EVENT_CD, EVENT_TRIGGER) or size != 8:
        raise RecordingError(
            f"expected events of type 0, 12 or 14 with 8 bytes, got type {event_type} with {size}",
            path=path,
            place=f"byte {at}",
            remedy="only change detection and trigger events can be read",
        )
    return event_type


def _size(keys: dict[str, str]) -> tuple[int, int] | None:
    width, height = keys.get("width", ""), keys.get("height", "")
    if not (width.isdecimal() and height.isdecimal() and len(width) < 6 and len(height) < 6):
        return None
    return (int(width), int(height)) if 0 < int(width) <= 65536 and 0 < int(height) <= 65536 else None


EVENT_BYTES = 5
OVERFLOW_Y = 240
OVERFLOW_US = 1 << 13
NMNIST_SENSOR = (34, 34)
_EVENTS = 1 << 17


class NMnistReader(ArrayReader):
    """A recording of N-MNIST or N-Caltech101.

    Layout (garrickorchard.com/datasets): x, y, then 24 bits big endian: p, and t in us. An entry
    with y = 240 is no event: it adds 2^13 us to the times after it.

    Args:
        path: the file.
        sensor: width and height; None for N-MNIST's 34x34 where the events fit, or else what they reach.
    """

    def __init__(self, path: Path, *, sensor: tuple[int, int] | None = None) -> None:
        if path.stat().st_size < EVENT_BYTES:
            raise RecordingError(
                f"expected events of {EVENT_BYTES} bytes, got {path.stat().st_size} bytes in all",
                path=path,
                remedy="copy it again",
            )
        super().__init__(path, "N-MNIST", sensor or NMNIST_SENSOR)
        if sensor is None and not all(_fits(batch, NMNIST_SENSOR) for batch in self.batches()):
            self.format = "N-Caltech101"
            measure_sensor(self)

    def batches(self) -> Iterator[EventBatch]:
        """The events in file order."""
        overflow_us, size = 0, self.path.stat().st_size
        with self.path.open("rb") as file:
            while data := file.read(EVENT_BYTES * _EVENTS):
                if len(data) % EVENT_BYTES:
                    self.warn(
                        f"the file is cut off: the last {len(data) % EVENT_BYTES} bytes are part of an event"
                    )
                rows = np.frombuffer(data, np.uint8, count=len(data) // EVENT_BYTES * EVENT_BYTES)
                rows = rows.reshape(-1, EVENT_BYTES)
                is_overflow = rows[:, 1] == OVERFLOW_Y
                offsets_us = overflow_us + OVERFLOW_US * np.cumsum(is_overflow, dtype=np.int64)
                overflow_us = int(offsets_us[-1]) if len(offsets_us) else overflow_us
                rows, offsets_us = rows[~is_overflow], offsets_us[~is_overflow]
                self.done = file.tell() / size
                yield EventBatch(
                    _times_us(rows) + offsets_us,
                    rows[:, 0].astype(np.uint16),
                    rows[:, 1].astype(np.uint16),
                    rows[:, 2] >> 7,
                )


def _times_us(rows: NDArray[np.uint8]) -> NDArray[np.int64]:
    wide = rows.astype(np.int64)
    return (wide[:, 2] & 127) << 16 | wide[:, 3] << 8 | wide[:, 4]


def _fits(batch: EventBatch, sensor: tuple[int, int]) -> bool:
    return not len(batch) or (int(batch.x.max()) < sensor[0] and int(batch.y.max()) < sensor[1])
