"""EVT2: 32-bit words, the type in the upper 4 bits; EVT2.1: the same, and beside each a mask of 32 pixels.

Types: 0 OFF, 1 ON, 8 TIME_HIGH (28 bits of 64 us), 10 EXT_TRIGGER, 14 OTHERS, 15 CONTINUED. An event holds
the 6 low bits of its time, then x and y of 11 bits each. In EVT2.1 the event stands for the pixels x + k
whose bit k is set in the mask; the word with the type is the upper half of 64 bits, or in the "legacy" order
the first half in the file. (Layout: Prophesee, "EVT 2.0 format", "EVT 2.1 format".)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events import _raw_state as s
from velora_edge.events._bits import count_ones
from velora_edge.events._compile import kernel
from velora_edge.events._raw_state import count_turn, put_edge
from velora_edge.events._sink_kernels import find_room, put_block, put_event, put_vector

BLOCK = 64
KNOWN_SILENT = (1 << 14) | (1 << 15)
TURN = 1 << 28
FIRST_OTHER = 2 << 28
"""Words below this are events."""


@kernel
def _is_plain(words: Any, start: Any, width: Any, height: Any) -> Any:
    """Whether the next `BLOCK` words are events inside the sensor; written to be vectorised."""
    odd = np.uint32(0)
    for k in range(BLOCK):
        word = np.uint32(words[np.uint64(start + k)])
        x, y = (word >> np.uint32(11)) & np.uint32(0x7FF), word & np.uint32(0x7FF)
        odd |= np.uint32(word >= np.uint32(FIRST_OTHER)) | np.uint32(x >= width) | np.uint32(y >= height)
    return odd == 0


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


@kernel
def walk_evt2(words: Any, start: Any, t1_us: Any, state: Any, edges: Any, sink: Any) -> Any:
    """Put the events before `t1_us` into the sink; stop at the first that is not, or where the sink is full.

    Args:
        words: uint32[N].
        start: position to begin at.
        t1_us: the window's end.
        state: see `_raw_state`; changed.
        edges: EdgeBuffer for trigger edges; a full one stops the walk.
        sink: see `_sink_kernels`; changed.

    Returns:
        Position of the first word that was not used up.
    """
    i, n_words = np.int64(start), np.int64(len(words))
    width, height = state[s.WIDTH], state[s.HEIGHT]
    width32, height32 = np.uint32(width), np.uint32(height)
    n, walked = state[s.PLACED], np.int64(0)
    while i < n_words:
        room = find_room(sink, n)
        if room <= 0:
            break
        t_high = state[s.T_US]
        if (
            i + BLOCK <= n_words
            and room >= BLOCK
            and state[s.SYNCED] == 1
            and t_high + 63 < t1_us
            and _is_plain(words, i, width32, height32)
        ):
            n = put_block(sink, n, words, i, i + BLOCK, t_high)
            walked += BLOCK
            i += BLOCK
            continue
        end = min(n_words, i + min(room, BLOCK))
        stopped = False
        while i < end:
            word = np.int64(words[np.uint64(i)])
            kind = word >> 28
            if kind < 2:
                x, y, t = (word >> 11) & 0x7FF, word & 0x7FF, t_high + ((word >> 22) & 63)
                if state[s.SYNCED] == 0:
                    state[s.EARLY] += 1
                elif x >= width or y >= height:
                    state[s.OUTSIDE] += 1
                elif t >= t1_us:
                    stopped = True
                    break
                else:
                    n = put_event(sink, n, t, x, y, kind, 1)
                    walked += 1
            elif kind == 8:
                _take_time(state, word & 0xFFFFFFF)
                i += 1
                break
            elif not _take_other(word, state, edges):
                stopped = True
                break
            i += 1
        if stopped:
            break
    state[s.PLACED], state[s.WALKED] = n, walked
    return i


@kernel
def _take_other(word: Any, state: Any, edges: Any) -> Any:
    """A trigger edge, or a word that says nothing here; False if the edge found no room."""
    kind = word >> 28
    if kind == 10:
        if state[s.SYNCED] == 0:
            state[s.EARLY_EDGES] += 1
            return True
        return put_edge(edges, state, state[s.T_US] + ((word >> 22) & 63), (word >> 8) & 0x1F, word & 1)
    if (KNOWN_SILENT >> kind) & 1 == 0:
        state[s.UNKNOWN] += 1
    return True


@kernel
def walk_evt21(words: Any, start: Any, t1_us: Any, state: Any, edges: Any, sink: Any, head: Any) -> Any:
    """As `walk_evt2`, for EVT2.1.

    Args:
        words: uint32[N], N even: both halves of each word in the file's order.
        start: position to begin at, even.
        t1_us: the window's end.
        state: see `_raw_state`; changed.
        edges: EdgeBuffer for trigger edges; a full one stops the walk.
        sink: see `_sink_kernels`; changed.
        head: which half holds the type, 0 or 1.

    Returns:
        Position of the first word that was not used up.
    """
    i, n_words = np.int64(start), np.int64(len(words))
    width, height = state[s.WIDTH], state[s.HEIGHT]
    n, walked = state[s.PLACED], np.int64(0)
    t_high, synced = state[s.T_US], state[s.SYNCED] == 1
    stopped = False
    while i < n_words and not stopped:
        room = find_room(sink, n)
        if room <= 0:
            break
        end = min(n_words, i + 2 * (room // 32 + 1))
        while i < end:
            word = np.int64(words[np.uint64(i + head)])
            kind = word >> 28
            if kind < 2:
                mask = np.int64(words[np.uint64(i + 1 - head)])
                x, y, t = (word >> 11) & 0x7FF, word & 0x7FF, t_high + ((word >> 22) & 63)
                if not synced:
                    state[s.EARLY] += count_ones(mask)
                    mask = np.int64(0)
                elif x + 32 > width or y >= height:
                    inside = np.int64(0)
                    if x < width and y < height:
                        inside = mask & ((np.int64(1) << min(width - x, 32)) - 1)
                    if inside != 0 and t >= t1_us:
                        stopped = True
                        break
                    state[s.OUTSIDE] += count_ones(mask) - count_ones(inside)
                    mask = inside
                elif t >= t1_us and mask != 0:
                    stopped = True
                    break
                if mask != 0:
                    n = put_vector(sink, n, t, x, y, kind, mask)
                    walked += count_ones(mask)
            elif kind == 8:
                _take_time(state, word & 0xFFFFFFF)
                t_high, synced = state[s.T_US], True
            elif not _take_other(word, state, edges):
                stopped = True
                break
            i += 2
    state[s.PLACED], state[s.WALKED] = n, walked
    return i
