"""Raw words of events in memory, without their file; and their encoding where a camera has none."""

from __future__ import annotations

import io
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_header import parse_header
from velora_edge.events.formats.raw.raw_walker import CHUNK_BYTES, NEVER, RawDecoder, RawWalker
from velora_edge.events.kernels._sink_kernels import CountSink
from velora_edge.events.writers.raw import HIGH, EVT2Writer, EVT3Writer, EVT21Writer, RawWriter

if TYPE_CHECKING:
    from velora_edge.datatypes import EventBatch, TriggerBatch
    from velora_edge.events.base import Encoding, WordsContext


_VERSION = {"EVT2": "2.0", "EVT2.1": "2.1", "EVT3": "3.0"}
_NAME = {"EVT2": "EVT2", "EVT2.1": "EVT21", "EVT3": "EVT3"}
_TIME_BITS = {"EVT2": (6, 28), "EVT2.1": (6, 28), "EVT3": (12, 12)}
"""Bits of a time below TIME_HIGH, and bits of TIME_HIGH."""


@dataclass(frozen=True, slots=True)
class WordFormat:
    """Format of words for a file's header.

    Attributes:
        encoding: of the words.
        sensor: width and height, pixels.
        is_legacy: EVT2.1's order of halves: True with the typed half first.
        header: what stood before the words where they came from; empty where nothing did.
    """

    encoding: Encoding
    sensor: tuple[int, int]
    is_legacy: bool = False
    header: bytes = b""

    @classmethod
    def of(cls, context: WordsContext) -> WordFormat:
        """The format of the words that a decoder walks."""
        return cls(context.encoding, context.sensor, context.is_legacy, context.header)

    def full_header(self) -> bytes:
        """The header as it came, where it tells all that a reader must know; otherwise one of ours."""
        if self.header:
            try:
                said = parse_header(self.header)
            except RecordingError:
                return self._own_header()
            knows_order = self.encoding != "EVT2.1" or said.is_legacy == self.is_legacy
            if (said.encoding, said.sensor) == (self.encoding, self.sensor) and knows_order:
                return self.header
        return self._own_header()

    def _own_header(self) -> bytes:
        width, height = self.sensor
        lines = [
            "camera_integrator_name Prophesee",
            *(
                [f"endianness {'legacy' if self.is_legacy else 'little'}"]
                if self.encoding == "EVT2.1"
                else []
            ),
            f"evt {_VERSION[self.encoding]}",
            f"format {_NAME[self.encoding]};height={height};width={width}",
            f"geometry {width}x{height}",
            "end",
        ]
        return "".join(f"% {line}\n" for line in lines).encode("ascii")


@dataclass(frozen=True, slots=True)
class Place:
    """Place of a decoder between two words: what the words after it refer to.

    Attributes:
        t_us: the time that it has reached.
        row: EVT3's row; `NOWHERE` before the first.
        base: EVT3's next vector column, likewise.
        base_p: its polarity.
    """

    t_us: int
    row: int = s.NOWHERE
    base: int = s.NOWHERE
    base_p: int = 0

    @classmethod
    def of(cls, context: WordsContext) -> Place | None:
        """Where a decoder stands; None before the stream's first time."""
        state = context.state
        if not state[s.SYNCED]:
            return None
        return cls(int(state[s.T_US]), int(state[s.Y]), int(state[s.BASE]), int(state[s.BASE_P]))


def lead_in(form: WordFormat, place: Place, after_us: int | None = None) -> bytes:
    """Words that bring a decoder to `place`, so that what comes after them may follow.

    TIME_HIGH comes round, every 16.8 s in EVT3; to reach the same time as the stream, the decoder is led
    through all its turns, four words each: 20 kB for a day of EVT3.

    Args:
        form: of the words.
        place: where the decoder is to stand.
        after_us: the time that the decoder has reached; None for one that has seen no time yet.
    """
    low_bits, high_bits = _TIME_BITS[form.encoding]
    high, turn = place.t_us >> low_bits, 1 << high_bits
    from_zero = 0 if high >= turn else high
    start = from_zero if after_us is None else (after_us >> low_bits) + turn // 4
    highs = np.append(np.arange(start, high, turn // 4, dtype=np.int64), high) % turn
    if form.encoding == "EVT2":
        return (highs | 8 << 28).astype("<u4").tobytes()
    if form.encoding == "EVT2.1":
        halves = np.zeros((len(highs), 2), "<u4")
        halves[:, 0 if form.is_legacy else 1] = highs | 8 << 28
        return halves.tobytes()
    words = [*(highs | 0x8000).tolist(), 0x6000 | place.t_us & 0xFFF]
    if place.row != s.NOWHERE:
        words.append(place.row)
    if place.base < 2048:
        words.append(0x3000 | place.base_p << 11 | place.base)
    return np.array(words, "<u2").tobytes()


def time_after(form: WordFormat, place: Place | None, data: bytes | memoryview) -> int | None:
    """The time that a decoder which stood at `place` has reached after these words; None if it saw none."""
    walker = RawWalker(form.encoding, form.sensor, form.is_legacy)
    rest = memoryview((b"" if place is None else lead_in(form, place)) + data)
    for start in range(0, len(rest), CHUNK_BYTES):
        walker.fill_with(rest[start : start + CHUNK_BYTES])
        while walker.walk(NEVER, CountSink()):
            pass
    reached = Place.of(walker)
    return None if reached is None else reached.t_us


def first_time(form: WordFormat, place: Place | None, data: bytes | memoryview) -> int | None:
    """The time of the first event that a decoder which stood at `place` finds in these words, or None."""
    decoder = RawDecoder(form.encoding, form.sensor, form.is_legacy)
    if place is not None:
        decoder.feed(lead_in(form, place))
    batch = decoder.feed(data)
    return int(batch.t_us[0]) if len(batch) else None


_KINDS: dict[str, tuple[type[RawWriter], int]] = {
    "EVT2": (EVT2Writer, 6),
    "EVT2.1": (EVT21Writer, 6),
    "EVT3": (EVT3Writer, 12),
}
"""By encoding: its writer, and the bits of a time below TIME_HIGH."""


class WordEncoder:
    """Writes one stream of words, from the first batch to the last.

    Single-threaded: whoever encodes.

    Args:
        form: of the words.

    Raises:
        InputError: if the encoding has no room for such a sensor.
    """

    def __init__(self, form: WordFormat) -> None:
        self._form = form
        kind, self._low_bits = _KINDS[form.encoding]
        self._writer = _writing_to_memory(kind, form.sensor)
        self._has_begun = False

    def encode(self, batch: EventBatch, edges: TriggerBatch | None = None) -> tuple[Place, bytes]:
        """Where the stream stood before these events, and their words.

        Args:
            batch: events in time order, at least one; not changed.
            edges: trigger edges of the same time, or None.

        Raises:
            InputError: if they are not in time order, or cannot be told in this encoding.
        """
        writer, memory = self._writer, self._writer.memory
        first_us = int(batch.t_us[0])
        if edges is not None and len(edges):
            first_us = min(first_us, int(edges.t_us[0]))
        if not self._has_begun and first_us >= 0:
            writer.stand_at(first_us >> self._low_bits)
            self._has_begun = True
        place = Place(writer.high << self._low_bits)
        if edges is not None:
            writer.write_triggers(edges)
        writer.write(batch)
        data = memory.getvalue()
        memory.seek(0)
        memory.truncate()
        return place, self._in_order(data)

    def _in_order(self, data: bytes) -> bytes:
        """Writers of EVT2.1 put the typed half second."""
        if self._form.encoding == "EVT2.1" and self._form.is_legacy:
            return np.frombuffer(data, "<u4").reshape(-1, 2)[:, ::-1].tobytes()
        return data


class WordShifter:
    """Words of a camera whose clock began anew, told on the clock before: decoded and encoded again.

    Single-threaded: whoever encodes.

    Args:
        form: of the words.
        place: where the camera's stream stands before the first of them; None at its beginning.
        shift_us: what to add to its times.
    """

    def __init__(self, form: WordFormat, place: Place | None, shift_us: int) -> None:
        self._shift_us = shift_us
        self._decoder = RawDecoder(form.encoding, form.sensor, form.is_legacy)
        self._encoder = WordEncoder(form)
        if place is not None:
            self._decoder.feed(lead_in(form, place))

    def shift(self, data: bytes | memoryview) -> tuple[Place, bytes] | None:
        """Where the new stream stands before these words, and the words; None where no event is in them.

        Raises:
            InputError: if the events are not in time order, or before the clock's zero.
        """
        batch, edges = self._decoder.feed(data), self._decoder.take_triggers()
        if not len(batch):
            return None
        moved_edges = replace(edges, t_us=edges.t_us + self._shift_us)
        return self._encoder.encode(replace(batch, t_us=batch.t_us + self._shift_us), moved_edges)


class _MemoryWriter(RawWriter):
    """Writer of raw words to memory."""

    memory: io.BytesIO

    def _begin(self) -> Path:
        return Path(os.devnull)

    def _open(self, path: Path) -> None:
        super()._open(path)
        self._file.close()
        self.memory = io.BytesIO()
        self._file = self.memory  # type: ignore[assignment]

    @property
    def high(self) -> int:
        """The TIME_HIGH that a decoder has seen last."""
        return int(self._state[HIGH])

    def stand_at(self, high: int) -> None:
        """Write as if a decoder had seen this TIME_HIGH."""
        self._state[HIGH] = high


def _writing_to_memory(kind: type[RawWriter], sensor: tuple[int, int]) -> _MemoryWriter:
    made: type[_MemoryWriter] = type(f"Memory{kind.__name__}", (_MemoryWriter, kind), {})
    return made("events", *sensor)
