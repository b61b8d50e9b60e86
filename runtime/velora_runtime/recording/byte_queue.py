"""A queue between the pipeline and a recorder, bounded in bytes: an edge is small, a picture is not."""

from __future__ import annotations

from collections import deque
from threading import Condition
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteQueue(Generic[T]):
    """First in, first out. Callable from any thread; made for one that takes.

    Args:
        room_bytes: that may wait; one item always may, whatever its size, and what has none.
        waits: whether who puts waits for room; otherwise what finds none is not taken.
    """

    def __init__(self, room_bytes: int, *, waits: bool) -> None:
        self._room_bytes, self._waits = room_bytes, waits
        self._items: deque[tuple[T, int]] = deque()
        self._held_bytes = 0
        self._is_finished = False
        self._changed = Condition()

    def put(self, item: T, n_bytes: int) -> bool:
        """Whether the item was taken; never once the backlog is finished."""
        with self._changed:
            if self._waits:
                self._changed.wait_for(lambda: self._is_finished or self._fits(n_bytes))
            if self._is_finished or not self._fits(n_bytes):
                return False
            self._items.append((item, n_bytes))
            self._held_bytes += n_bytes
            self._changed.notify_all()
            return True

    def get(self) -> T | None:
        """The oldest item; waits for one. None: finished, and nothing is left."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._is_finished)
            if not self._items:
                return None
            item, n_bytes = self._items.popleft()
            self._held_bytes -= n_bytes
            self._changed.notify_all()
            return item

    def finish(self) -> None:
        """Say that nothing more will be put; what waits can still be taken."""
        with self._changed:
            self._is_finished = True
            self._changed.notify_all()

    def _fits(self, n_bytes: int) -> bool:
        return not (n_bytes and self._items) or self._held_bytes + n_bytes <= self._room_bytes
