"""EVT3: 16-bit words, the type in the upper 4 bits. Every word is taken on its own.

Types: 0 ADDR_Y, 2 ADDR_X (an event), 3 VECT_BASE_X, 4 VECT_12, 5 VECT_8, 6 TIME_LOW, 7 CONTINUED_4, 8
TIME_HIGH, 10 EXT_TRIGGER, 14 OTHERS, 15 CONTINUED_12. Readers that expect a fixed number of words after
OTHERS swallow the TIME_HIGH among them; here OTHERS and CONTINUED are passed over one by one. (Layout:
Prophesee, "EVT 3.0 format".)
"""

from __future__ import annotations

from typing import Any

import numpy as np

from velora_edge.events import _raw_state as s
from velora_edge.events._bits import count_ones
from velora_edge.events._compile import kernel
from velora_edge.events._raw_state import count_turn, put_edge
from velora_edge.events._sink_kernels import find_room, put_event, put_vector

PADDING = 0x9999
KNOWN_SILENT = (1 << 7) | (1 << 14) | (1 << 15)
TURN = 1 << 12
MOST_EVENTS = 12
"""Events in one word."""


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
def walk_evt3(words: Any, start: Any, t1_us: Any, state: Any, edges: Any, sink: Any) -> Any:
    """Put the events before `t1_us` into the sink; stop at the first that is not, or where the sink is full.

    Args:
        words: uint16[N].
        start: position to begin at.
        t1_us: the window's end.
        state: see `_raw_state`; changed.
        edges: EdgeBuffer for trigger edges; a full one stops the walk.
        sink: see `_sink_kernels`; changed.

    Returns:
        Position of the first word that was not used up.
    """
    i, n_words = np.int64(start), np.int64(len(words))
    if state[s.SYNCED] == 0:
        i = np.int64(join_evt3(words, i, state))
    width, height = state[s.WIDTH], state[s.HEIGHT]
    t, high, wraps = state[s.T_US], state[s.HIGH], state[s.WRAPS]
    y, base, base_p = state[s.Y], state[s.BASE], state[s.BASE_P]
    n, walked = state[s.PLACED], np.int64(0)
    # Some cameras send times that no event has, ahead of the stream: only steps from event to event count.
    event_t, walked_then, backwards = state[s.EVENT_US], np.int64(0), np.int64(0)
    # Below these limits an address needs no further look. Both are 0 while the row is outside the sensor, the
    # first is 0 from the window's end on: so one comparison a word stands for four.
    limit_x = width if (y < height and t < t1_us) else np.int64(0)
    limit_y = height if y < height else np.int64(0)
    stopped = False
    while i < n_words and not stopped:
        room = find_room(sink, n)
        if room <= 0:
            break
        end = min(n_words, i + room // MOST_EVENTS + 1)
        while i < end:
            word = np.int64(words[np.uint64(i)])
            kind, address = word >> 12, word & 0x7FF
            if (kind & 13) == 0:
                # ADDR_X and ADDR_Y without a branch between them, which no processor could foretell.
                is_x = kind >> 1
                if address >= (limit_x if is_x else limit_y):
                    if is_x == 0:
                        y = address
                        limit_y = height if y < height else np.int64(0)
                        limit_x = width if (y < height and t < t1_us) else np.int64(0)
                    elif y == s.NOWHERE:
                        state[s.HOMELESS] += 1
                    elif address >= width or y >= height:
                        state[s.OUTSIDE] += 1
                    else:
                        stopped = True
                        break
                else:
                    y ^= (y ^ address) & (is_x - 1)
                    n = put_event(sink, n, t, address, y, (word >> 11) & 1, is_x)
                    walked += is_x
                i += 1
            elif kind == 6:
                if walked != walked_then:
                    backwards += np.int64(t < event_t)
                    event_t, walked_then = t, walked
                t = (t & -4096) | (word & 0xFFF)
                limit_x = width if (y < height and t < t1_us) else np.int64(0)
                i += 1
            elif kind == 8:
                new = word & 0xFFF
                if new != high:
                    if walked != walked_then:
                        backwards += np.int64(t < event_t)
                        event_t, walked_then = t, walked
                    wraps = count_turn(high, new, TURN, wraps)
                    high = new
                    t = (wraps << 24) | (high << 12)
                    limit_x = width if (y < height and t < t1_us) else np.int64(0)
                i += 1
            elif kind == 3:
                base, base_p = address, (word >> 11) & 1
                i += 1
            elif kind == 4 or kind == 5:
                mask = word & (0xFFF if kind == 4 else 0xFF)
                step, taken = np.int64(12 if kind == 4 else 8), np.int64(1)
                if kind == 4 and i + 2 < end:
                    second, third = np.int64(words[np.uint64(i + 1)]), np.int64(words[np.uint64(i + 2)])
                    if (second >> 12) == 4 and (third >> 12) == 5:
                        mask |= ((second & 0xFFF) << 12) | ((third & 0xFF) << 24)
                        step, taken = np.int64(32), np.int64(3)
                if base + step > limit_x:
                    inside = np.int64(0)
                    if y < height and base < width:
                        inside = mask & ((np.int64(1) << min(width - base, 32)) - 1)
                    if inside != 0 and t >= t1_us:
                        stopped = True
                        break
                    lost = count_ones(mask) - count_ones(inside)
                    state[s.HOMELESS if (y == s.NOWHERE or base >= s.NOWHERE) else s.OUTSIDE] += lost
                    if inside != 0:
                        n = put_vector(sink, n, t, base, y, base_p, inside)
                        walked += count_ones(inside)
                else:
                    n = put_vector(sink, n, t, base, y, base_p, mask)
                    walked += count_ones(mask)
                base += step
                i += taken
            elif kind == 10:
                if not put_edge(edges, state, t, (word >> 8) & 0xF, word & 1):
                    stopped = True
                    break
                i += 1
            else:
                if word == PADDING:
                    state[s.PADDING] += 1
                elif (KNOWN_SILENT >> kind) & 1 == 0:
                    state[s.UNKNOWN] += 1
                i += 1
    state[s.T_US], state[s.HIGH], state[s.WRAPS] = t, high, wraps
    state[s.Y], state[s.BASE], state[s.BASE_P] = y, base, base_p
    if walked != walked_then:
        backwards += np.int64(t < event_t)
        event_t = t
    state[s.EVENT_US] = event_t
    state[s.BACKWARDS] += backwards
    state[s.PLACED], state[s.WALKED] = n, walked
    return i
