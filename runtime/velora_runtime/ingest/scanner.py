"""Scan of raw words in the camera's thread: how far they reach, their trigger edges, whether they are words.

Nothing is decoded into memory here; the packing thread walks the words again, straight into frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_walker import NEVER, WORD_BYTES, RawWalker
from velora_edge.events.kernels._sink_kernels import CountSink

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from velora_edge.datatypes import TriggerBatch
    from velora_edge.events.base import Encoding

MOST_BYTES = 1 << 17
"""Of one scan."""
FEW_BAD, BAD_PART = 8, 50
"""Up to 8 bad words, or one in 50, are an accident; random bytes have one in three."""
_BAD = (s.UNKNOWN, s.OUTSIDE)
_PLACE = (s.SYNCED, s.T_US, s.HIGH, s.WRAPS, s.Y, s.BASE, s.BASE_P, s.EVENT_US)
"""What of the state says where a decoder stands; the rest counts."""


@dataclass(frozen=True, slots=True)
class Scan:
    """What was seen in some words.

    Attributes:
        words: whole words, as bytes.
        before: the decoder's state before them.
        rest: bytes of a word that had begun before them.
        begins_us: its time before them, camera clock; None before the first time word.
        reached_us: its time after them, likewise.
        events: in them.
        edges: in them, camera clock.
        steps_back: events that were earlier than the one before.
        is_garbage: these are no words.
    """

    words: bytes
    before: NDArray[Any]
    rest: bytes
    begins_us: int | None
    reached_us: int | None
    events: int
    edges: TriggerBatch
    steps_back: int
    is_garbage: bool

    @property
    def duration_us(self) -> int:
        """Time that they cover; 0 where it is not known."""
        return 0 if self.begins_us is None or self.reached_us is None else self.reached_us - self.begins_us


class RawScanner:
    """Looks through a stream of bytes, split anywhere.

    After garbage the stream may go on at any byte, so every place of a word's first byte is tried.

    Single-threaded: the camera's thread.

    Args:
        encoding: of the words.
        sensor: width and height, pixels.
        is_legacy: EVT2.1's order of halves.

    Attributes:
        resyncs: times that words were found again at another byte.
    """

    def __init__(self, encoding: Encoding, sensor: tuple[int, int], is_legacy: bool = True) -> None:
        self.resyncs = 0
        self._walker = RawWalker(encoding, sensor, is_legacy)
        self._word_bytes = WORD_BYTES[encoding]
        self._rest = b""
        self._is_lost, self._slipped = False, 0

    def begin(self) -> None:
        """Forget where the stream stood: a new connection."""
        width, height = self._walker.sensor
        self._walker.state[:] = s.new_state(width, height)
        self._rest, self._is_lost, self._slipped = b"", False, 0

    def scan(self, data: bytes) -> Scan | None:
        """Look at the words that end in these bytes, at most `MOST_BYTES`; None where there are none.

        Words that are garbage leave no trace.
        """
        rest = self._rest
        data = rest + data
        if self._is_lost:
            data = data[self._find_word(data) :]
        usable = len(data) // self._word_bytes * self._word_bytes
        words, self._rest = data[:usable], data[usable:]
        if not words:
            return None
        scan = self._walk(words, rest)
        if scan.is_garbage:
            self._walker.state[:] = scan.before
            self._forget_place()
            self._is_lost = True
        elif self._is_lost:
            self.resyncs += self._slipped % self._word_bytes != 0
            self._is_lost, self._slipped = False, 0
        return scan

    def take_back(self, scan: Scan) -> None:
        """Stand again where the decoder stood before a scan."""
        self._walker.state[:] = scan.before
        self._rest = scan.rest

    def drop_rest(self) -> None:
        """Forget the bytes of a word that has begun."""
        self._rest = b""

    def leaves_events(self, scan: Scan, t1_us: int) -> bool:
        """Whether some of the words' events are not before a time."""
        after = self._walker.state.copy()
        self._walker.state[:] = scan.before
        is_left = self._load(scan.words) and self._walker.walk(t1_us, CountSink())
        self._walker.take_triggers()
        self._walker.state[:] = after
        return is_left

    def find_first_us(self, scan: Scan) -> int | None:
        """Time of the words' first event, camera clock; None if there is none."""
        after = self._walker.state.copy()
        self._walker.state[:] = scan.before
        t_us = self._walker.find_next_us() if self._load(scan.words) else None
        self._walker.take_triggers()
        self._walker.state[:] = after
        return t_us

    def _walk(self, words: bytes, rest: bytes = b"") -> Scan:
        walker, before = self._walker, self._walker.state.copy()
        self._load(words)
        walker.walk(NEVER, CountSink())
        state = walker.state
        bad = sum(int(state[place] - before[place]) for place in _BAD)
        n_words = len(words) // self._word_bytes
        return Scan(
            words,
            before,
            rest,
            _time(before),
            _time(state),
            int(walker.walked),
            walker.take_triggers(),
            int(state[s.BACKWARDS] - before[s.BACKWARDS]),
            bad > FEW_BAD and bad * BAD_PART > n_words,
        )

    def _load(self, words: bytes) -> bool:
        def read_into(memory: memoryview) -> int:
            memory[: len(words)] = words
            return len(words)

        return self._walker.fill(read_into)

    def _find_word(self, data: bytes) -> int:
        """The place of the first byte, 0 to the size of a word, at which there are the fewest bad words."""
        state = self._walker.state.copy()
        bad = []
        for start in range(self._word_bytes):
            usable = (len(data) - start) // self._word_bytes * self._word_bytes
            scan = self._walk(data[start : start + usable]) if usable else None
            bad.append(0 if scan is None else sum(int(self._walker.state[b] - state[b]) for b in _BAD))
            self._walker.state[:] = state
        best = int(np.argmin(bad))
        self._slipped += best
        return best

    def _forget_place(self) -> None:
        """What the garbage hid: events wait for the next time, row and vector."""
        state = self._walker.state
        state[s.Y] = state[s.BASE] = s.NOWHERE


def restore_place(state: NDArray[Any], place: NDArray[Any]) -> None:
    """Let a decoder stand where another one stood, its counters untouched."""
    for field in _PLACE:
        state[field] = place[field]


def _time(state: NDArray[Any]) -> int | None:
    return int(state[s.T_US]) if state[s.SYNCED] else None
