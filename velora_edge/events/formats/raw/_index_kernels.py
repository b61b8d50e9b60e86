"""A quick look at the time words alone, to find places from which a recording can be resumed."""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.formats.raw import _evt2_kernels as evt2
from velora_edge.events.formats.raw import _evt3_careful as evt3
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw._raw_state import count_turn
from velora_edge.events.kernels._bits import count_ones
from velora_edge.events.kernels._compile import kernel
from velora_edge.events.kernels._lend import lend

# Places in a scan's memory, int64[6].
IS_SYNCED, HIGH, WRAPS, HIGHEST_US, LAST_FOUND, LAST_BASE = range(6)
# Columns of what a scan finds: a time word's position, the latest time that may come before it, the last
# TIME_HIGH before it and how often that had come round, and where a vector base stands before it, or -1.
COLUMNS = 5
STRIDE = 64


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
    words = lend(words)
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
    words = lend(words)
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
    words = lend(words)
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
    words = lend(words)
    n = np.int64(0)
    for i in range(np.uint64(len(words))):
        n += np.int64(words[i] < np.uint32(evt2.FIRST_OTHER))
    return n


@kernel
def count_at_most_evt21(words: Any, head: Any) -> Any:
    """As `count_at_most_evt3`, for EVT2.1."""
    words = lend(words)
    n = np.int64(0)
    for i in range(0, len(words), 2):
        if words[i + head] < np.uint32(evt2.FIRST_OTHER):
            n += count_ones(np.int64(words[i + 1 - head]))
    return n
