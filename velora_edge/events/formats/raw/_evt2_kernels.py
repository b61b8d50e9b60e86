"""EVT2: 32-bit words, the type in the upper 4 bits; EVT2.1: the same, and beside each a mask of 32 pixels.

Types: 0 OFF, 1 ON, 8 TIME_HIGH (28 bits of 64 us), 10 EXT_TRIGGER, 14 OTHERS, 15 CONTINUED. An event holds
the 6 low bits of its time, then x and y of 11 bits each. In EVT2.1 the event stands for the pixels x + k
whose bit k is set in the mask; the word with the type is the upper half of 64 bits, or in the "legacy" order
the first half in the file. (Layout: Prophesee, "EVT 2.0 format", "EVT 2.1 format".)

Runs of events between two other words are put at once, by loops that the compiler vectorises; what is not
as it should be (an address outside the sensor, the window's end) is taken word by word.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw._raw_state import BLOCK, count_turn, put_edge
from velora_edge.events.kernels._intrinsics import borrow, count_ones, count_trailing_zeros, kernel
from velora_edge.events.kernels._sink_kernels import find_room, put_block, put_event, put_words

SILENT = (1 << 14) | (1 << 15)
TURN = 1 << 28
FIRST_OTHER = 1 << 29
"""Words below this are events."""
STRIDE = 32


@kernel
def _find_run_end(words: Any, start: Any, end: Any) -> Any:
    """Position of the first word, from `start` to `end`, that is not an event."""
    words = borrow(words)
    i, stop = np.uint64(start), np.uint64(end)
    while i + np.uint64(STRIDE) <= stop:
        united = np.uint32(0)
        for k in range(np.uint64(STRIDE)):
            united |= words[i + k]
        if united >= np.uint32(FIRST_OTHER):
            break
        i += np.uint64(STRIDE)
    while i < stop and words[i] < np.uint32(FIRST_OTHER):
        i += np.uint64(1)
    return np.int64(i)


@kernel
def _is_inside(words: Any, start: Any, n: Any, width: Any, height: Any) -> Any:
    """Whether `n` event words all lie inside the sensor."""
    run = borrow(words)[start : start + n]
    # An address beyond the sensor, and no other, carries over into the bit above its field.
    margin = np.uint32(((2048 - width) << 12) | (2048 - height))
    beyond = np.uint32(0)
    for k in range(np.uint64(n)):
        word = np.uint32(run[k])
        address = ((word & np.uint32(0x3FF800)) << np.uint32(1)) | (word & np.uint32(0x7FF))
        beyond |= address + margin
    return beyond & np.uint32((1 << 23) | (1 << 11)) == 0


@kernel
def walk_evt2(words: Any, start: Any, t1_us: Any, state: Any, edges: Any, scratch: Any, sink: Any) -> Any:
    """Put the events before `t1_us` into the sink; stop at the first that is not, or where the sink is full.

    Args:
        words: uint32[N].
        start: position to begin at.
        t1_us: the window's end.
        state: see `_raw_state`; changed.
        edges: EdgeBuffer for trigger edges; a full one stops the walk.
        scratch: see `_raw_state`.
        sink: see `_sink_kernels`; changed.

    Returns:
        Position of the first word that was not used up.
    """
    i, n_words = np.int64(start), np.int64(len(words))
    state[s.WALKED] = 0
    while i < n_words:
        room = find_room(sink, state[s.PLACED])
        if room <= 0:
            break
        n: Any = np.int64(0)
        if state[s.SYNCED] == 1 and state[s.T_US] + 63 < t1_us:
            n = _find_run_end(words, i, min(n_words, i + min(room, BLOCK))) - i
        if n > 0 and _is_inside(words, i, n, state[s.WIDTH], state[s.HEIGHT]):
            state[s.PLACED] = put_words(sink, state[s.PLACED], words, i, n, state[s.T_US])
            state[s.WALKED] += n
            i += n
            continue
        end = min(n_words, i + max(n, 1))
        while i < end and _take_word(np.int64(words[i]), np.int64(1), t1_us, state, edges, sink):
            i += 1
        if i < end:
            break
    return i


@kernel
def walk_evt21(
    words: Any, start: Any, t1_us: Any, state: Any, edges: Any, scratch: Any, sink: Any, head: Any
) -> Any:
    """As `walk_evt2`, for EVT2.1.

    Args:
        words: uint32[N], N even: both halves of each word in the file's order.
        start: position to begin at, even.
        t1_us: the window's end.
        state: see `_raw_state`; changed.
        edges: EdgeBuffer for trigger edges; a full one stops the walk.
        scratch: see `_raw_state`.
        sink: see `_sink_kernels`; changed.
        head: which half holds the type, 0 or 1.

    Returns:
        Position of the first word that was not used up.
    """
    i, n_words = np.int64(start), np.int64(len(words))
    packed = scratch.packed
    state[s.WALKED] = 0
    while i < n_words:
        room = find_room(sink, state[s.PLACED])
        if room < len(packed) and (state[s.PLACED] > 0 or room < 32):
            break
        if room >= len(packed) and state[s.SYNCED] == 1 and state[s.T_US] + 63 < t1_us:
            i, n = _pack_masks(words, i, state[s.WIDTH], state[s.HEIGHT], packed, head)
            state[s.PLACED] = put_block(sink, state[s.PLACED], packed, n, state[s.T_US])
            state[s.WALKED] += n
        if i < n_words:
            word, mask = np.int64(words[i + head]), np.int64(words[i + 1 - head])
            if not _take_word(word, mask, t1_us, state, edges, sink):
                break
            i += 2
    return i


@kernel
def _pack_masks(words: Any, start: Any, width: Any, height: Any, packed: Any, head: Any) -> Any:
    """Pack the events up to a word that is none, or not inside the sensor; its position, and how many."""
    words, packed = borrow(words), borrow(packed)
    i, n = np.int64(start), np.int64(0)
    while i < len(words) and n + 32 < len(packed):
        word = np.int64(words[i + head])
        x, y = (word >> 11) & 0x7FF, word & 0x7FF
        if word >= FIRST_OTHER or x + 32 > width or y >= height:
            break
        fields = (y << 16) | x | ((word >> 28) << 11) | (((word >> 22) & 63) << 32)
        rest = np.int64(words[i + 1 - head])
        while rest != 0:
            packed[n] = fields + count_trailing_zeros(rest)
            n += 1
            rest &= rest - 1
        i += 2
    return i, n


@kernel
def _take_word(word: Any, mask: Any, t1_us: Any, state: Any, edges: Any, sink: Any) -> Any:
    """Take one word with every check; False, and nothing done, if it holds an event that is not yet due.

    False too for a trigger edge that finds no room.
    """
    kind, t = word >> 28, state[s.T_US] + ((word >> 22) & 63)
    if kind == 8:
        _take_time(state, word & 0xFFFFFFF)
    elif state[s.SYNCED] == 0:
        if kind < 2:
            state[s.EARLY] += count_ones(mask)
        elif kind == 10:
            state[s.EARLY_EDGES] += 1
    elif kind < 2:
        x, y = (word >> 11) & 0x7FF, word & 0x7FF
        inside = np.int64(0)
        if x < state[s.WIDTH] and y < state[s.HEIGHT]:
            inside = mask & ((np.int64(1) << min(state[s.WIDTH] - x, 32)) - 1)
        if inside != 0 and t >= t1_us:
            return False
        state[s.OUTSIDE] += count_ones(mask) - count_ones(inside)
        state[s.WALKED] += count_ones(inside)
        while inside != 0:
            state[s.PLACED] = put_event(sink, state[s.PLACED], t, x + count_trailing_zeros(inside), y, kind)
            inside &= inside - 1
    elif kind == 10:
        return put_edge(edges, state, t, (word >> 8) & 0x1F, word & 1)
    elif (SILENT >> kind) & 1 == 0:
        state[s.UNKNOWN] += 1
    return True


@kernel
def _take_time(state: Any, high: Any) -> None:
    """A TIME_HIGH word."""
    if state[s.SYNCED] == 0:
        state[s.SYNCED] = 1
    else:
        state[s.WRAPS] = count_turn(state[s.HIGH], high, TURN, state[s.WRAPS])
    state[s.HIGH] = high
    now = (state[s.WRAPS] << 34) | (high << 6)
    state[s.BACKWARDS] += np.int64(now < state[s.T_US])
    state[s.T_US] = now
