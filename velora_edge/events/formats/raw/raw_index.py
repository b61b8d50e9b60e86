"""Index of checkpoints from which a `.raw` recording can be resumed, found by a scan of its time words.

EVT3 says row, column base and time in words of their own, so that a walk cannot begin anywhere. A checkpoint
is a time word, with what the time words before it tell; rows and bases are read again just before it.
"""

from __future__ import annotations

import bisect
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from velora_edge.events.formats.raw import _evt2_kernels as evt2
from velora_edge.events.formats.raw import _evt3_kernels as evt3
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw._raw_state import count_turn
from velora_edge.events.formats.raw.raw_walker import CHUNK_BYTES, LONG_AGO, RawWalker
from velora_edge.events.kernels._intrinsics import borrow, count_ones, kernel
from velora_edge.events.seek_index import FileBytes, IndexFile

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray
    from typing_extensions import Self

    from velora_edge.events.base import Encoding


# Places in a scan's memory, int64[6].
IS_SYNCED, HIGH, WRAPS, HIGHEST_US, LAST_FOUND, LAST_BASE = range(6)
# Columns of what a scan finds: a time word's position, the latest time that may come before it, the last
# TIME_HIGH before it and how often that had come round, and where a vector base stands before it, or -1.
COLUMNS = 5
STRIDE = 64
_TIME_HIGH = 8
"""Type of a time word, in the upper four bits, in every encoding."""


@kernel
def _note(found: Any, n: Any, position: Any, memory: Any) -> None:
    found[n, 0], found[n, 1] = position, memory[HIGHEST_US]
    found[n, 2], found[n, 3], found[n, 4] = memory[HIGH], memory[WRAPS], memory[LAST_BASE]
    memory[LAST_FOUND] = position


@kernel
def scan_evt3(words: Any, position: Any, spacing: Any, memory: Any, found: Any) -> Any:
    """Note places where TIME_HIGH changes, `spacing` words apart or more; how many.

    Args:
        words: uint16[N].
        position: of the first of them in the recording, in words.
        spacing: words.
        memory: int64[6], see above; changed.
        found: int64[M, 5], written to; M at least N / spacing + 1.
    """
    words = borrow(words)
    i, n_words, n = np.uint64(0), np.uint64(len(words)), np.int64(0)
    while i < n_words:
        end = min(i + np.uint64(STRIDE), n_words)
        if i + np.uint64(STRIDE) <= n_words:
            # Most time words repeat the one before them; written so that the compiler vectorises it.
            known = np.uint16(0x8000 | memory[HIGH])
            times, bases = False, False
            for k in range(i, end):
                word = words[k]
                times |= ((word & np.uint16(0xF000)) == np.uint16(0x8000)) & (word != known)
                bases |= (word & np.uint16(0xF000)) == np.uint16(0x3000)
            if bases:
                memory[LAST_BASE] = position + np.int64(i)
            if not times and memory[IS_SYNCED] == 1:
                i = end
                continue
        while i < end:
            word = np.int64(words[i])
            here = position + np.int64(i)
            if (word >> 12) == 3 and memory[LAST_BASE] < here - STRIDE:
                memory[LAST_BASE] = here
            if (word >> 12) == 8 and (memory[IS_SYNCED] == 0 or (word & 0xFFF) != memory[HIGH]):
                if memory[IS_SYNCED] == 1:
                    if here - memory[LAST_FOUND] >= spacing:
                        _note(found, n, here, memory)
                        n += 1
                    memory[WRAPS] = count_turn(memory[HIGH], word & 0xFFF, evt3.TURN, memory[WRAPS])
                memory[IS_SYNCED], memory[HIGH] = 1, word & 0xFFF
                reached = (memory[WRAPS] << 24) | ((word & 0xFFF) << 12) | 0xFFF
                memory[HIGHEST_US] = max(memory[HIGHEST_US], reached)
            i += np.uint64(1)
    return n


@kernel
def scan_evt2(words: Any, position: Any, spacing: Any, memory: Any, found: Any, step: Any, head: Any) -> Any:
    """As `scan_evt3`, for EVT2 (step 1, head 0) and EVT2.1 (step 2, head 0 or 1); words are uint32."""
    words = borrow(words)
    n = np.int64(0)
    for i in range(0, len(words), step):
        word = np.int64(words[i + head])
        if (word >> 28) == 8:
            high = word & 0xFFFFFFF
            if memory[IS_SYNCED] == 1:
                if position + i - memory[LAST_FOUND] >= spacing:
                    _note(found, n, position + i, memory)
                    n += 1
                memory[WRAPS] = count_turn(memory[HIGH], high, evt2.TURN, memory[WRAPS])
            memory[IS_SYNCED], memory[HIGH] = 1, high
            memory[HIGHEST_US] = max(memory[HIGHEST_US], (memory[WRAPS] << 34) | (high << 6) | 63)
    return n


@kernel
def recall_addresses(words: Any, state: Any) -> None:
    """Bring row and vector base of an EVT3 walk's state up to the end of these words."""
    for i in range(len(words)):
        word = np.int64(words[i])
        kind = word >> 12
        if kind == 0:
            state[s.Y] = word & 0x7FF
        elif kind == 3:
            state[s.BASE] = word & 0x7FF
            state[s.BASE_P] = (word >> 11) & 1
        elif kind == 4:
            state[s.BASE] += 12
        elif kind == 5:
            state[s.BASE] += 8


@kernel
def count_at_most_evt3(words: Any) -> Any:
    """How many events these words hold at most; written so that the compiler vectorises it."""
    words = borrow(words)
    n = np.int64(0)
    for i in range(np.uint64(len(words))):
        word = words[i]
        kind = word >> np.uint16(12)
        mask = word & np.uint16(0xFFF)
        is_vector = (kind == np.uint16(4)) | (kind == np.uint16(5))
        n += np.int64(kind == np.uint16(2)) + (count_ones(mask) if is_vector else np.uint16(0))
    return n


@kernel
def count_at_most_evt2(words: Any) -> Any:
    """As `count_at_most_evt3`, for EVT2."""
    words = borrow(words)
    n = np.int64(0)
    for i in range(np.uint64(len(words))):
        n += np.int64(words[i] < np.uint32(evt2.FIRST_OTHER))
    return n


@kernel
def count_at_most_evt21(words: Any, head: Any) -> Any:
    """As `count_at_most_evt3`, for EVT2.1."""
    words = borrow(words)
    n = np.int64(0)
    for i in range(0, len(words), 2):
        if words[i + head] < np.uint32(evt2.FIRST_OTHER):
            n += count_ones(np.int64(words[i + 1 - head]))
    return n


SPACING_BYTES = 1 << 17
_RECALLED_BYTES = 1 << 15


class RawWords(Protocol):
    """A recording of raw words; see `velora_edge.events.formats.raw.raw.RawReader`."""

    path: Path
    encoding: Encoding
    payload_at: int
    is_legacy: bool

    def new_walker(self) -> RawWalker:
        """A walker for the file's words, before the first."""


class Checkpoint(NamedTuple):
    """A place to resume at.

    Attributes:
        position: byte of the payload.
        before_us: no event before it is later than this.
        high: the last TIME_HIGH before it, -1 at the recording's start.
        wraps: how often TIME_HIGH had come round.
        base: byte of the payload, at or before the last vector base before it; -1 where there was none.
    """

    position: int
    before_us: int
    high: int
    wraps: int
    base: int


START = Checkpoint(0, LONG_AGO, -1, 0, -1)
_KEPT_COLUMNS = 7
"""A checkpoint and zeros; in the last row, the scan's memory and the number of words that were looked at."""


class RawIndex:
    """The checkpoints of one recording, looked for as far as they are asked for.

    Single-threaded: whoever asks.
    """

    def __init__(self, reader: RawWords) -> None:
        self._reader = reader
        self._found = np.empty((CHUNK_BYTES // SPACING_BYTES + 2, COLUMNS), np.int64)
        self._begin()
        kind = f"{reader.encoding} {reader.payload_at} {reader.is_legacy}"
        self._index_file = IndexFile(reader.path, kind, _KEPT_COLUMNS)

    def _begin(self) -> None:
        """Know nothing, and look from the recording's start on."""
        self._walker = self._reader.new_walker()
        self._file = FileBytes(self._reader.path, self._reader.payload_at)
        self._memory = np.array([0, 0, 0, LONG_AGO, 0, -1], np.int64)
        self._position = self._kept = 0
        self.checkpoints = [START]
        self.is_complete = False

    @property
    def latest_us(self) -> int:
        """No event of what was looked at is later than this."""
        return int(self._memory[HIGHEST_US])

    def load(self) -> None:
        """Take over what was kept of the index, if it is of the file as it is now."""
        rows, is_complete = self._index_file.load()
        size = self._walker.words.itemsize
        if not _are_sound(rows, self._file.size - self._reader.payload_at, size):
            return
        *checkpoints, last = rows.tolist()
        self.checkpoints = [Checkpoint(*row[: len(START)]) for row in checkpoints]
        self._memory[:], self._position = last[:-1], last[-1]
        self._kept, self.is_complete = self._position, is_complete
        self._file.close()
        at = self._position * size
        self._file = FileBytes(self._reader.path, self._reader.payload_at + at)

    def save(self) -> None:
        """Keep the index beside the recording, if it has grown since it was loaded."""
        if self._position == self._kept:
            return
        rows = np.zeros((len(self.checkpoints) + 1, _KEPT_COLUMNS), np.int64)
        rows[:-1, : len(START)] = self.checkpoints
        rows[-1] = (*self._memory, self._position)
        self._index_file.save(rows, is_complete=self.is_complete)

    def find(self, t_us: int) -> Checkpoint:
        """The last checkpoint before which there is no event at `t_us` or later."""
        found = self.checkpoints[max(self._place_after(t_us) - 1, 0)]
        if self._kept and not self._is_time_word(found):  # the kept index is of something else
            self.close()
            self._begin()
            found = self.checkpoints[max(self._place_after(t_us) - 1, 0)]
        return found

    def latest_near(self, t_us: int) -> int:
        """No event from the checkpoint that is found for `t_us` to the next one is later than this."""
        place = self._place_after(t_us)
        return self.checkpoints[place].before_us if place < len(self.checkpoints) else self.latest_us

    def _place_after(self, t_us: int) -> int:
        """Number of the first checkpoint before which there may be an event at `t_us` or later."""
        while not self.is_complete and self.latest_us < t_us:
            self._scan()
        return bisect.bisect_left(self.checkpoints, t_us, key=lambda checkpoint: checkpoint.before_us)

    def _is_time_word(self, checkpoint: Checkpoint) -> bool:
        """Whether the recording has a TIME_HIGH there, and another one than the last before it."""
        if checkpoint.high < 0:
            return True
        encoding, size = self._reader.encoding, self._walker.words.itemsize
        at = self._reader.payload_at + checkpoint.position
        if encoding == "EVT2.1" and not self._reader.is_legacy:
            at += size
        with self._reader.path.open("rb") as file:
            file.seek(at)
            word = int.from_bytes(file.read(size), "little")
        bits = 8 * size - 4
        return word >> bits == _TIME_HIGH and word & ((1 << bits) - 1) != checkpoint.high

    def _scan(self) -> None:
        if not self._walker.fill(self._file.read_into):
            self.is_complete = True
            self._file.close()
            return
        words = self._walker.words
        size = words.itemsize
        arguments = words, self._position, SPACING_BYTES // size, self._memory, self._found
        if self._reader.encoding == "EVT3":
            n = scan_evt3(*arguments)
        else:
            step, head = (
                (1, 0) if self._reader.encoding == "EVT2" else (2, 0 if self._reader.is_legacy else 1)
            )
            n = scan_evt2(*arguments, step, head)
        for position, before_us, high, wraps, base in self._found[:n].tolist():
            at = position * size
            self.checkpoints.append(Checkpoint(at, before_us, high, wraps, base * size if base >= 0 else -1))
        self._position += len(words)

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def _are_sound(rows: NDArray[np.int64], payload_bytes: int, word_bytes: int) -> bool:
    """Whether kept rows can be an index of so many bytes at all."""
    if len(rows) < 2 or tuple(rows[0, : len(START)].tolist()) != START:
        return False
    position, before_us, high, wraps, base = rows[1:-1, : len(START)].T
    is_synced, last_high, last_wraps, _, found, last_base, looked_at = rows[-1].tolist()
    most_words = payload_bytes // word_bytes
    return bool(
        (np.diff(position, prepend=0) > 0).all()
        and ((position < payload_bytes) & (position % word_bytes == 0)).all()
        and (np.diff(before_us, append=rows[-1, HIGHEST_US]) >= 0).all()
        and ((high >= 0) & (high < 1 << 28) & (wraps >= 0) & (wraps < 1 << 30)).all()
        and ((base >= -1) & (base <= position)).all()
        and is_synced in (0, 1)
        and 0 <= last_high < 1 << 28
        and 0 <= last_wraps < 1 << 30
        and 0 <= found <= looked_at <= most_words
        and -1 <= last_base <= looked_at
    )


def count_at_most(reader: RawWords) -> int:
    """How many events a recording holds at most: those outside the sensor or without a time count too."""
    walker, n = reader.new_walker(), 0
    file = FileBytes(reader.path, reader.payload_at)
    while walker.fill(file.read_into):
        if reader.encoding == "EVT3":
            n += count_at_most_evt3(walker.words)
        elif reader.encoding == "EVT2":
            n += count_at_most_evt2(walker.words)
        else:
            n += count_at_most_evt21(walker.words, 0 if reader.is_legacy else 1)
    file.close()
    return int(n)


def resume(walker: RawWalker, reader: RawWords, checkpoint: Checkpoint) -> FileBytes:
    """Give a walker the memory of one that has walked up to the checkpoint; the file that it goes on with."""
    walker.forget()
    words_at = reader.payload_at + checkpoint.position
    if checkpoint.high < 0:
        return FileBytes(reader.path, words_at)
    state = walker.state
    state[s.SYNCED], state[s.HIGH], state[s.WRAPS] = 1, checkpoint.high, checkpoint.wraps
    if reader.encoding != "EVT3":
        state[s.T_US] = (checkpoint.wraps << 34) | (checkpoint.high << 6)
        return FileBytes(reader.path, words_at)
    state[s.T_US] = (checkpoint.wraps << 24) | (checkpoint.high << 12)
    back = _RECALLED_BYTES
    while True:
        start = max(0, checkpoint.position - back)
        if checkpoint.base >= 0:
            start = min(start, checkpoint.base)
        file = FileBytes(reader.path, reader.payload_at + start)
        walker.drop_words()
        left = (checkpoint.position - start) // 2
        while left > 0 and walker.fill(file.read_into):
            words = walker.words[:left]
            recall_addresses(words, state)
            walker.pass_over(len(words))
            left -= len(words)
        if start == 0 or state[s.Y] != s.NOWHERE:
            return file
        file.close()
        back *= 8
