"""Kernels of EVT3, 16-bit words that change a state: a fast walk without branches, and a careful one.

The type is in the upper 4 bits: 0 ADDR_Y, 2 ADDR_X (an event), 3 VECT_BASE_X, 4 VECT_12, 5 VECT_8, 6
TIME_LOW, 7 CONTINUED_4, 8 TIME_HIGH, 10 EXT_TRIGGER, 14 OTHERS, 15 CONTINUED_12. Every word is taken on its
own. Readers that expect a fixed number of words after OTHERS swallow the TIME_HIGH among them; here OTHERS
and CONTINUED are passed over one by one. A TIME_HIGH that changes sets the low bits to 0 until the next
TIME_LOW. (Layout: Prophesee, "EVT 3.0 format".)

The fast walk gathers words into packed events without branches, and puts these into the sink by the block: a
processor cannot predict the types of EVT3's words, and a wrong prediction costs more than the work. One
register holds the fields of an event, and each word of the common types replaces one of them, as a table
says:

    bit  44        32        16     11      0
         TIME_HIGH | TIME_LOW | row  | p | column

The register is written out after each word, and the place of writing moves on after an ADDR_X only. What the
table does not cover (an address outside the sensor, a TIME_HIGH that goes back, the window's end, ...) is
left to `walk_carefully`, which takes words one by one with every check and is the plain statement of the
format. The rejected choice, a comparison and a branch for each type, is half as fast on real recordings.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw._raw_state import BLOCK, count_turn, put_edge
from velora_edge.events.kernels._intrinsics import borrow, count_ones, count_trailing_zeros, kernel
from velora_edge.events.kernels._sink_kernels import find_room, put_block, put_event

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
    words, state, edges, sink = borrow(words), borrow(state), borrow(edges), borrow(sink)
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


SHORTEST = BLOCK // 4**3
"""Words that are rather walked carefully than gathered again."""
MOST_EVENTS = 12
"""Events in one word."""
# The table: for each type, 8 numbers. A word is as foreseen if (word & CHECKED) ^ EXPECTED < LIMIT. Then its
# bits TAKEN, shifted by SHIFT, replace the register's bits that are not in KEPT, the place moves by EVENT.
CHECKED, EXPECTED, LIMIT, TAKEN, SHIFT, KEPT, EVENT = range(7)
_TIME_LOW, _TIME_HIGH = 32, 44


@kernel
def _fill_table(table: Any, width: Any, height: Any, high: Any) -> None:
    table[:] = 0
    for kind, checked, expected, limit, taken, shift in (
        (0, 0x7FF, 0, height, 0x7FF, 16),
        (2, 0x7FF, 0, width, 0xFFF, 0),
        (6, 0, 0, 1, 0xFFF, _TIME_LOW),
        (8, 0xFFF, high, 1, 0xFFF, _TIME_HIGH),
        (7, 0, 0, 1, 0, 0),
        (14, 0, 0, 1, 0, 0),
        (15, 0, 0, 1, 0, 0),
    ):
        at = 8 * kind
        table[at + CHECKED], table[at + EXPECTED], table[at + LIMIT] = checked, expected, limit
        table[at + TAKEN], table[at + SHIFT] = taken, shift
        table[at + KEPT] = ~(np.int64(0xFFF if taken else 0) << shift)
        table[at + EVENT] = np.int64(kind == 2)


@kernel
def _gather(
    words: Any, start: Any, end: Any, register: Any, base: Any, base_p: Any, t_turns: Any, state: Any,
        edges: Any,
    table: Any, packed: Any,
) -> Any:  # fmt: skip
    """Packed events of the words from `start`, up to `end` or the first word that is not foreseen.

    Returns:
        Position of the first word that was not used up, number of events, register, base, base_p.
    """
    words, table, packed = borrow(words), borrow(table), borrow(packed)
    i, stop, n = np.uint64(start), np.uint64(end), np.uint64(0)
    one, two = np.uint64(1), np.uint64(2)
    full = np.uint64(len(packed) - BLOCK - 64)
    while i < stop:
        word = np.int64(words[i])
        row = np.uint64((word >> 12) << 3)
        if (word & table[row]) ^ table[row + np.uint64(EXPECTED)] < table[row + np.uint64(LIMIT)]:
            taken = (word & table[row + np.uint64(TAKEN)]) << (table[row + np.uint64(SHIFT)] & 63)
            register = (register & table[row + np.uint64(KEPT)]) | taken
            packed[n] = register
            n += np.uint64(table[row + np.uint64(EVENT)])
            i += one
            continue
        kind = word >> 12
        if kind == 3:
            base, base_p = word & 0x7FF, word & 0x800
            i += one
        elif kind == 4 or kind == 5:
            mask = word & (0xFFF if kind == 4 else 0xFF)
            step, after = np.int64(12 if kind == 4 else 8), i + one
            if kind == 4 and i + two < stop:
                second, third = np.int64(words[i + one]), np.int64(words[i + two])
                if (second >> 12) == 4 and (third >> 12) == 5:
                    # The three words of 32 pixels nearly always come together.
                    mask |= ((second & 0xFFF) << 12) | ((third & 0xFF) << 24)
                    step, after = np.int64(32), i + np.uint64(3)
            if n > full or base + step > state[s.WIDTH]:
                break
            # Most masks hold two events or fewer: two are written without asking.
            fields = (register & ~np.int64(0xFFF)) | base_p
            rest = mask & (mask - 1)
            packed[n] = fields | (base + (count_trailing_zeros(mask) & 31))
            packed[n + one] = fields | (base + (count_trailing_zeros(rest) & 31))
            rest &= rest - 1
            at = n + two
            while rest != 0:
                packed[at] = fields | (base + count_trailing_zeros(rest))
                at += one
                rest &= rest - 1
            n += np.uint64(count_ones(mask))
            base += step
            i = after
        elif kind == 8:
            ahead = (word & 0xFFF) - (register >> _TIME_HIGH)
            if ahead < 0 or ahead > TURN // 2:
                break
            register = (register & 0xFFFFFFFF) | ((word & 0xFFF) << _TIME_HIGH)
            table[np.uint64(8 * 8 + EXPECTED)] = word & 0xFFF
            i += one
        elif kind == 10:
            if not put_edge(edges, state, t_turns + (register >> 32), (word >> 8) & 0xF, word & 1):
                break
            i += one
        else:
            break
    return np.int64(i), np.int64(n), register, base, base_p


@kernel
def _is_due(packed: Any, n: Any, t_end: Any) -> Any:
    """Whether all packed events are before that time, which is without turns."""
    late = np.int64(0)
    for k in range(np.uint64(n)):
        late |= t_end - 1 - (packed[k] >> 32)
    return late >= 0


@kernel
def _is_in_order(packed: Any, n: Any, t_before: Any) -> Any:
    """Whether no event is earlier than the one before it."""
    back = (packed[0] >> 32) - t_before
    for k in range(np.uint64(1), np.uint64(n)):
        back |= (packed[k] >> 32) - (packed[k - np.uint64(1)] >> 32)
    return back >= 0


@kernel
def walk_evt3(words: Any, start: Any, t1_us: Any, state: Any, edges: Any, scratch: Any, sink: Any) -> Any:
    """Put the events before `t1_us` into the sink; stop at the first that is not, or where the sink is full.

    Args:
        words: uint16[N].
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
    packed, table = scratch.packed, scratch.table
    state[s.WALKED] = 0
    if state[s.SYNCED] == 0:
        i = np.int64(join_evt3(words, i, state))
    careful_until, block = np.int64(0), np.int64(BLOCK)
    is_table_new = False
    while i < n_words:
        room = find_room(sink, state[s.PLACED])
        if room < len(packed) and state[s.PLACED] > 0:
            break
        if state[s.T_US] >= t1_us:
            careful_until = max(careful_until, i + SHORTEST)
        if i < careful_until or room < len(packed) or state[s.Y] >= state[s.HEIGHT]:
            if room < MOST_EVENTS:
                break
            end = min(n_words, max(i + 1, min(careful_until, i + room // MOST_EVENTS)))
            i = np.int64(walk_carefully(words, i, end, t1_us, state, edges, sink))
            is_table_new, block = False, np.int64(BLOCK)
            if i < end:
                break
            continue
        if not is_table_new:
            _fill_table(table, state[s.WIDTH], state[s.HEIGHT], state[s.HIGH])
            is_table_new = True
        t_turns, kept_edges = state[s.WRAPS] << 24, state[s.EDGES]
        register = ((state[s.T_US] - t_turns) << 32) | (state[s.Y] << 16)
        end = min(n_words, i + block)
        after, n, register, base, base_p = _gather(
            words,
            i,
            end,
            register,
            state[s.BASE],
            state[s.BASE_P] << 11,
            t_turns,
            state,
            edges,
            table,
            packed,
        )
        careful_until = after + np.int64(after < end)
        if n > 0:
            t_end = t1_us - t_turns
            is_due = ((register >> 32) | 0xFFF) < t_end or _is_due(packed, n, t_end)
            if not is_due or not _is_in_order(packed, n, state[s.EVENT_US] - t_turns):
                # Not from here: again with fewer words, and the last few of them word by word.
                state[s.EDGES] = kept_edges
                is_table_new = False
                if block > SHORTEST:
                    block //= 4
                    careful_until = i
                else:
                    careful_until = max(after, i + 1)
                continue
            state[s.EVENT_US] = t_turns + (packed[n - 1] >> 32)
            state[s.PLACED] = put_block(sink, state[s.PLACED], packed, n, t_turns)
            state[s.WALKED] += n
        state[s.T_US], state[s.HIGH] = t_turns + (register >> 32), register >> _TIME_HIGH
        state[s.Y], state[s.BASE], state[s.BASE_P] = (register >> 16) & 0x7FF, base, base_p >> 11
        i = after
    return i
