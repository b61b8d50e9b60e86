"""Decoding of `libcaer_cmp`, the compressed packets of the ROS drivers for iniVation's cameras.

Layout (facts from ros-event-camera/event_camera_codecs, Apache-2.0): little-endian u16 words, the type in
the top 4 bits: 0 upper 12 bits of the time and 1 lower 12, in us since the packet's time base; 2 x; 3 y in 11
bits and polarity in bit 11, which makes an event; 4 base of y and polarity for vectors; 5 a vector of 8 rows,
after which the base moves on by 8.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

MOST_PER_WORD = 8


@njit(nogil=True, cache=True)
def decode_libcaer_cmp(words: Any, base_us: Any, x: Any, t_us: Any, xs: Any, ys: Any, ps: Any) -> Any:
    """Decode one packet.

    Args:
        words: uint16[W].
        base_us: the packet's time base.
        x: the column that the packet before ended with.
        t_us: int64[N] out; N >= 8 W.
        xs: uint16[N] out.
        ys: uint16[N] out.
        ps: uint8[N] out.

    Returns:
        Number of events, the last column, and the number of words of no known type.
    """
    n, unknown = 0, 0
    high, low = np.int64(0), np.int64(0)
    base_y, base_p = np.int64(0), np.int64(0)
    for i in range(len(words)):
        word = np.int64(words[i])
        kind, value = word >> 12, word & 0xFFF
        if kind == 0:
            high = value << 12
        elif kind == 1:
            low = value
        elif kind == 2:
            x = value & 0x7FF
        elif kind == 3:
            t_us[n], xs[n], ys[n], ps[n] = base_us + (high | low), x, value & 0x7FF, value >> 11
            n += 1
        elif kind == 4:
            base_y, base_p = value & 0x7FF, value >> 11
        elif kind == 5:
            for bit in range(8):
                if value & (1 << bit):
                    t_us[n], xs[n], ys[n], ps[n] = base_us + (high | low), x, base_y + bit, base_p
                    n += 1
            base_y += 8
        else:
            unknown += 1
    return n, x, unknown
