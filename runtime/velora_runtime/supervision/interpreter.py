"""What a run asks of the interpreter and its memory: short turns, no pauses for garbage."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

TURN_S = 0.0005


@contextlib.contextmanager
def steady() -> Iterator[None]:
    """While a run lasts."""
    before_s = sys.getswitchinterval()
    # A thread that writes a page of metrics is not to keep a pair waiting for 5 ms.
    sys.setswitchinterval(TURN_S)
    # What was loaded by now stays: looking through it for garbage would stop all threads for 0.1 s.
    gc.collect()
    gc.freeze()
    give_back_memory()
    try:
        yield
    finally:
        gc.unfreeze()
        sys.setswitchinterval(before_s)


def give_back_memory() -> None:
    """Have glibc return to the system what was freed (malloc_trim(3)); other C libraries do as they do.

    What waited during a stall otherwise stays with the process for good, between small blocks that live on.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)
