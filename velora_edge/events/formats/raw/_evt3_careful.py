"""EVT3 word by word, with every check: what the fast walk leaves over, and the plain statement of the format.

16-bit words, the type in the upper 4 bits: 0 ADDR_Y, 2 ADDR_X (an event), 3 VECT_BASE_X, 4 VECT_12, 5
VECT_8, 6 TIME_LOW, 7 CONTINUED_4, 8 TIME_HIGH, 10 EXT_TRIGGER, 14 OTHERS, 15 CONTINUED_12. Every word is
taken on its own. Readers that expect a fixed number of words after OTHERS swallow the TIME_HIGH among them;
here OTHERS and CONTINUED are passed over one by one. A TIME_HIGH that changes sets the low bits to 0 until
the next TIME_LOW. (Layout: Prophesee, "EVT 3.0 format".)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw._raw_state import count_turn, put_edge
from velora_edge.events.kernels._bits import count_ones, count_trailing_zeros
from velora_edge.events.kernels._compile import kernel
from velora_edge.events.kernels._lend import lend
from velora_edge.events.kernels._sink_kernels import put_event

PADDING = 0x9999
SILENT = (1 << 7) | (1 << 14) | (1 << 15)
TURN = 1 << 12


@kernel
def join_evt3(words: Any, start: Any, state: Any) -> Any:
    """Position of the first TIME_HIGH from `start`; what comes before has no time and is counted."""
    for i in range(start, len(words)):
        word = np.int64(words[i])
        kind = word >> 12
        if kind == 8:
            state[s.SYNCED] = 1
            state[s.HIGH] = word & 0xFFF
            state[s.T_US] = (word & 0xFFF) << 12
            return i
        if kind == 0:
            state[s.Y] = word & 0x7FF
        elif kind == 2:
            state[s.EARLY] += 1
        elif kind == 3:
            state[s.BASE] = word & 0x7FF
            state[s.BASE_P] = (word >> 11) & 1
        elif kind == 4:
            state[s.EARLY] += count_ones(word & 0xFFF)
            state[s.BASE] += 12
        elif kind == 5:
            state[s.EARLY] += count_ones(word & 0xFF)
            state[s.BASE] += 8
        elif kind == 10:
            state[s.EARLY_EDGES] += 1
    return len(words)


@kernel
def walk_carefully(words: Any, start: Any, end: Any, t1_us: Any, state: Any, edges: Any, sink: Any) -> Any:
    """Put the events of the words from `start` to `end` into the sink, which has room for 12 a word.

    Stops at the first event that is not before `t1_us`, and where the edge buffer is full.

    Returns:
        Position of the first word that was not used up.
    """
    words, state, edges, sink = lend(words), lend(state), lend(edges), lend(sink)
    for i in range(start, end):
        word = np.int64(words[i])
        kind, address = word >> 12, word & 0x7FF
        if kind == 0:
            state[s.Y] = address
        elif kind == 2:
            if not _put_mask(address, 1, (word >> 11) & 1, t1_us, state, sink):
                return i
        elif kind == 3:
            state[s.BASE] = address
            state[s.BASE_P] = (word >> 11) & 1
        elif kind == 4 or kind == 5:
            mask = word & (0xFFF if kind == 4 else 0xFF)
            if not _put_mask(state[s.BASE], mask, state[s.BASE_P], t1_us, state, sink):
                return i
            state[s.BASE] += 12 if kind == 4 else 8
        elif kind == 6:
            state[s.T_US] = (state[s.T_US] & -4096) | (word & 0xFFF)
        elif kind == 8:
            new = word & 0xFFF
            if new != state[s.HIGH]:
                state[s.WRAPS] = count_turn(state[s.HIGH], new, TURN, state[s.WRAPS])
                state[s.HIGH] = new
                state[s.T_US] = (state[s.WRAPS] << 24) | (new << 12)
        elif kind == 10:
            if not put_edge(edges, state, state[s.T_US], (word >> 8) & 0xF, word & 1):
                return i
        elif word == PADDING:
            state[s.PADDING] += 1
        elif (SILENT >> kind) & 1 == 0:
            state[s.UNKNOWN] += 1
    return end


@kernel
def _put_mask(x: Any, mask: Any, p: Any, t1_us: Any, state: Any, sink: Any) -> Any:
    """Put the events at `x` + k for each bit k of the mask; False, and nothing done, if not yet due."""
    width, height, t, y = state[s.WIDTH], state[s.HEIGHT], state[s.T_US], state[s.Y]
    inside = np.int64(0)
    if x < width and y < height:
        inside = mask & ((np.int64(1) << min(width - x, 12)) - 1)
    if inside != 0 and t >= t1_us:
        return False
    lost = count_ones(mask) - count_ones(inside)
    state[s.HOMELESS if (y == s.NOWHERE or x >= s.NOWHERE) else s.OUTSIDE] += lost
    if inside != 0:
        state[s.BACKWARDS] += np.int64(t < state[s.EVENT_US])
        state[s.EVENT_US] = t
        state[s.WALKED] += count_ones(inside)
    while inside != 0:
        state[s.PLACED] = put_event(sink, state[s.PLACED], t, x + count_trailing_zeros(inside), y, p)
        inside &= inside - 1
    return True
