"""Raw words apart from the file that they came in: the header, and what must stand before a cut."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.errors import RecordingError
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_header import parse_header
from velora_edge.events.formats.raw.raw_walker import NEVER, RawWalker
from velora_edge.events.kernels._sink_kernels import CountSink

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding, WordsContext

_VERSION = {"EVT2": "2.0", "EVT2.1": "2.1", "EVT3": "3.0"}
_NAME = {"EVT2": "EVT2", "EVT2.1": "EVT21", "EVT3": "EVT3"}
_TIME_BITS = {"EVT2": (6, 28), "EVT2.1": (6, 28), "EVT3": (12, 12)}
"""Bits of a time below TIME_HIGH, and bits of TIME_HIGH."""


@dataclass(frozen=True, slots=True)
class WordFormat:
    """What a file needs to know of the words that it holds.

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
    """Where a decoder stands between two words: what the words after it refer to.

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

    def read_into(memory: memoryview) -> int:
        nonlocal rest
        n = min(len(memory), len(rest))
        memory[:n], rest = rest[:n], rest[n:]
        return n

    while walker.fill(read_into):
        while walker.walk(NEVER, CountSink()):
            pass
    reached = Place.of(walker)
    return None if reached is None else reached.t_us
