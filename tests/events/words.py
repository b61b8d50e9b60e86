"""Raw words by hand, and a decoder that is written for clarity, one word at a time."""

from __future__ import annotations

import numpy as np

PADDING = 0x9999
OTHERS, CONTINUED_4, CONTINUED_12 = 0xE000, 0x7000, 0xF000


def addr_y(y):
    return y


def addr_x(x, p=1):
    return 2 << 12 | p << 11 | x


def base_x(x, p=1):
    return 3 << 12 | p << 11 | x


def vect_12(mask):
    return 4 << 12 | mask


def vect_8(mask):
    return 5 << 12 | mask


def time_low(low):
    return 6 << 12 | low


def time_high(high):
    return 8 << 12 | high


def edge(channel, p):
    return 10 << 12 | channel << 8 | p


def evt3(*words) -> bytes:
    return np.array(words, "<u2").tobytes()


def event_2(t, x, y, p=1):
    return p << 28 | t << 22 | x << 11 | y


def time_2(high):
    return 8 << 28 | high


def edge_2(t, channel, p):
    return 10 << 28 | t << 22 | channel << 8 | p


def evt2(*words) -> bytes:
    return np.array(words, "<u4").tobytes()


def evt21(*pairs, legacy=True) -> bytes:
    """Pairs of the typed half and the mask."""
    return np.array([(head, mask) if legacy else (mask, head) for head, mask in pairs], "<u4").tobytes()


def rows(batch):
    """Events as (t, x, y, p)."""
    return list(zip(batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist(), strict=True))


def edge_rows(batch):
    """Trigger edges as (t, id, p)."""
    return list(zip(batch.t_us.tolist(), batch.id.tolist(), batch.p.tolist(), strict=True))


class _Clock:
    def __init__(self, turn):
        self.turn, self.high, self.wraps = turn, None, 0

    def take(self, new):
        if self.high is not None:
            if self.high - new > self.turn // 2:
                self.wraps += 1
            elif self.wraps and self.high < 16 and new >= self.turn - 16:
                self.wraps -= 1
        self.high = new
        return self.wraps * self.turn + new


def decode_evt3(words, width, height):
    """Events and edges of EVT3 words, as rows."""
    events, edges = [], []
    clock, t, y, base, base_p = _Clock(4096), None, None, None, None
    for word in words:
        kind, low12, low11, bit = word >> 12, word & 0xFFF, word & 0x7FF, word >> 11 & 1
        columns = []
        if kind == 0:
            y = low11
        elif kind == 2:
            columns, p = [low11], bit
        elif kind == 3:
            base, base_p = low11, bit
        elif kind in (4, 5) and base is not None:
            n = 12 if kind == 4 else 8
            columns, p = [base + k for k in range(n) if low12 >> k & 1], base_p
            base += n
        elif kind == 6 and t is not None:
            t = t // 4096 * 4096 + low12
        elif kind == 8 and low12 != clock.high:
            t = clock.take(low12) * 4096
        elif kind == 10 and t is not None:
            edges.append((t, low12 >> 8, low12 & 1))
        if t is not None and y is not None and y < height:
            events += [(t, x, y, p) for x in columns if x < width]
    return events, edges


def decode_evt2(words, width, height):
    """Events and edges of EVT2 words, as rows."""
    return decode_evt21([(word, 1) for word in words], width, height)


def decode_evt21(pairs, width, height):
    """Events and edges of EVT2.1 words, given as typed half and mask, as rows."""
    events, edges = [], []
    clock, t_high = _Clock(1 << 28), None
    for head, mask in pairs:
        kind, low6, x, y = head >> 28, head >> 22 & 63, head >> 11 & 0x7FF, head & 0x7FF
        if kind == 8:
            t_high = clock.take(head & 0xFFFFFFF) * 64
        elif t_high is not None and kind < 2 and y < height:
            events += [(t_high + low6, x + k, y, kind) for k in range(32) if mask >> k & 1 and x + k < width]
        elif t_high is not None and kind == 10:
            edges.append((t_high + low6, head >> 8 & 31, head & 1))
    return events, edges
