"""Objects that are used again, so that the steady state allocates nothing."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")


class FreeList(Generic[T]):
    """Hands out what was given back, and makes a new one only where nothing was.

    It holds as many as were ever in use at a time, which the bounded queues around it limit.

    Callable from any thread.
    """

    def __init__(self, make: Callable[[], T]) -> None:
        self._make = make
        self._free: deque[T] = deque()
        self.made = 0

    def take(self) -> T:
        """One that nobody uses; what it holds is left over from its last use."""
        try:
            return self._free.pop()
        except IndexError:
            self.made += 1
            return self._make()

    def give(self, item: T) -> None:
        """Give one back."""
        self._free.append(item)
