"""Objects that are used again, so that the steady state allocates nothing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
KEPT = 8


class FreeList(Generic[T]):
    """Hands out what was given back, and makes a new one only where nothing was.

    Callable from any thread.

    Args:
        make: makes one.
        kept: that many at most are kept for later; after a stall, when more were in use, the rest is freed.

    Attributes:
        made: in all.
        freed: in all.
    """

    def __init__(self, make: Callable[[], T], kept: int = KEPT) -> None:
        self._make = make
        self._free: deque[T] = deque(maxlen=kept)
        self.made = self.freed = 0

    def take(self) -> T:
        """One that nobody uses; what it holds is left over from its last use."""
        try:
            return self._free.pop()
        except IndexError:
            self.made += 1
            return self._make()

    def give(self, item: T) -> None:
        """Give one back."""
        self.freed += len(self._free) == self._free.maxlen
        self._free.append(item)
