"""What a run asks of the interpreter: short turns, no pauses for garbage, memory back after a stall."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TURN_S = 0.0005
M_MMAP_THRESHOLD, LARGE_BYTES = -3, 128 * 1024


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """While a run lasts."""
    before_s = sys.getswitchinterval()
    # A thread that writes a page of metrics is not to keep a pair waiting for 5 ms.
    sys.setswitchinterval(TURN_S)
    _give_back_large_blocks()
    # What was loaded by now stays: looking through it for garbage would stop all threads for 0.1 s.
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before_s)


def _give_back_large_blocks() -> None:
    """Have glibc return pictures, and what waited during a stall, to the system as they are freed.

    By default it moves its threshold up to what was freed, and such blocks then lie between small ones in
    heaps that can't shrink (mallopt(3)). Other C libraries do as they do.
    """
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_MMAP_THRESHOLD, LARGE_BYTES)
