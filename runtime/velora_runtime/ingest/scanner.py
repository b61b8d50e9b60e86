"""Scan of raw words in the camera's thread: how far they reach, their trigger edges, whether they are words.

Nothing is decoded into memory here; the packing thread walks the words again, straight into frames.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_walker import NEVER, WORD_BYTES, RawWalker
from velora_edge.events.kernels._sink_kernels import CountSink

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from numpy.typing import NDArray

    from velora_edge.datatypes import TriggerBatch
    from velora_edge.events.base import Encoding

T = TypeVar("T")

MOST_BYTES = 1 << 17
"""Of one scan."""
LEAST_BYTES = 32
"""Fewer are not looked at in parts."""
SLACK_US = 20_000
"""An event so much later than its words reach would block the windows that follow."""
FEW_BAD, BAD_PART = 8, 50
"""Up to 8 bad words, or one in 50, are an accident; random bytes have one in three."""
_BAD = (s.UNKNOWN, s.OUTSIDE)
_PLACE = (s.SYNCED, s.T_US, s.HIGH, s.WRAPS, s.Y, s.BASE, s.BASE_P, s.EVENT_US)
"""What of the state says where a decoder stands; the rest counts."""


@dataclass(frozen=True, slots=True)
class Scan:
    """Result of a scan of the words at the front of some bytes.

    Attributes:
        used: bytes that were looked at.
        words: whole words, as bytes.
        before: the decoder's state before them.
        t_first_us: time of their first event, or before them where there is none, camera clock; None before
            the first time word.
        t_reached_us: time after them, likewise.
        events: in them.
        edges: in them, camera clock.
        is_garbage: these are no words, or their times would hold up what follows.
    """

    used: int
    words: bytes
    before: NDArray[Any]
    t_first_us: int | None
    t_reached_us: int | None
    events: int
    edges: TriggerBatch
    is_garbage: bool


class RawScanner:
    """Scanner of a stream of bytes, split anywhere.

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
        """Reset for a new connection."""
        width, height = self._walker.sensor
        self._walker.state[:] = s.new_state(width, height)
        self._rest, self._is_lost, self._slipped = b"", False, 0

    def scan(self, data: bytes, longest_us: int | None = None) -> Scan:
        """Scan the words that end in these bytes.

        Words that are garbage leave no trace.

        Args:
            data: what came, at most `MOST_BYTES`.
            longest_us: words that cover more time are looked at in parts: only those at the front are now.
        """
        while True:
            stood = self._rest, self._is_lost, self._slipped, self.resyncs
            scan, duration_us = self._scan(data)
            is_long = longest_us is not None and duration_us > longest_us and not scan.is_garbage
            if not is_long or len(data) <= LEAST_BYTES:
                return scan
            self._walker.state[:] = scan.before
            self._rest, self._is_lost, self._slipped, self.resyncs = stood
            data = data[: len(data) // 2]

    def _scan(self, data: bytes) -> tuple[Scan, int]:
        """Scan all the words; return the scan and the time that they cover."""
        used, walker = len(data), self._walker
        data = self._rest + data
        if self._is_lost:
            data = data[self._find_word(data) :]
        usable = len(data) // self._word_bytes * self._word_bytes
        words, self._rest = data[:usable], data[usable:]
        before, began_us = walker.state.copy(), _time(walker.state)
        n_bad = self._walk(words)
        events, edges, reached_us = int(walker.walked), walker.take_triggers(), _time(walker.state)
        is_bad = n_bad > FEW_BAD and n_bad * BAD_PART > len(words) // self._word_bytes
        is_blocking = not is_bad and self._is_blocking(words, before)
        first_us = None
        if is_bad:
            walker.state[:] = before
            self._forget_place()
            self._is_lost = True
        elif is_blocking:
            walker.state[:] = before
            self._rest = b""
        elif words:
            if self._is_lost:
                self.resyncs += self._slipped % self._word_bytes != 0
                self._is_lost, self._slipped = False, 0
            first_us = began_us if began_us is not None else self._find_first_us(words, before)
        scan = Scan(
            used,
            words,
            before,
            reached_us if first_us is None else first_us,
            reached_us,
            events,
            edges,
            is_bad or is_blocking,
        )
        return scan, 0 if began_us is None or reached_us is None else reached_us - began_us

    def _walk(self, words: bytes) -> int:
        """Walk over the words; return how many are bad."""
        state = self._walker.state
        bad = [int(state[place]) for place in _BAD]
        self._walker.fill_with(words)
        self._walker.walk(NEVER, CountSink())
        return sum(int(state[place]) for place in _BAD) - sum(bad)

    def _is_blocking(self, words: bytes, before: NDArray[Any]) -> bool:
        """Whether times jump ahead and come back: an event far ahead would hold up all windows."""
        state, reached_us = self._walker.state, _time(self._walker.state)
        if reached_us is None or state[s.BACKWARDS] == before[s.BACKWARDS]:
            return False
        return self._from(words, before, lambda: self._walker.walk(reached_us + SLACK_US, CountSink()))

    def _find_first_us(self, words: bytes, before: NDArray[Any]) -> int | None:
        """Time of the words' first event, camera clock; None if there is none."""
        return self._from(words, before, self._walker.find_next_us)

    def _from(self, words: bytes, before: NDArray[Any], look: Callable[[], T]) -> T:
        """Call `look` with the decoder before the words; then set it after them again."""
        after = self._walker.state.copy()
        self._walker.state[:] = before
        self._walker.fill_with(words)
        found = look()
        self._walker.take_triggers()
        self._walker.state[:] = after
        return found

    def _find_word(self, data: bytes) -> int:
        """Find the first byte of a word: the start, 0 to the size of a word, with the fewest bad words."""
        state = self._walker.state.copy()
        bad = []
        for start in range(self._word_bytes):
            usable = (len(data) - start) // self._word_bytes * self._word_bytes
            bad.append(self._walk(data[start : start + usable]) if usable else 0)
            self._walker.take_triggers()
            self._walker.state[:] = state
        best = int(np.argmin(bad))
        self._slipped += best
        return best

    def _forget_place(self) -> None:
        """Forget time, row and vector, which garbage may have hidden."""
        state = self._walker.state
        state[s.Y] = state[s.BASE] = s.NOWHERE


def restore_place(state: NDArray[Any], place: NDArray[Any]) -> None:
    """Set a decoder to the place of another one; its counters stay."""
    for field in _PLACE:
        state[field] = place[field]


def _time(state: NDArray[Any]) -> int | None:
    return int(state[s.T_US]) if state[s.SYNCED] else None
