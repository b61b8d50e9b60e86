"""Pre-roll buffer: the last seconds in a bounded amount of memory, from which a clip can be saved.

Pieces lie in slabs, each a memory mapping of its own (`ByteArena`); a slab goes back to the system as a whole
with the last piece on it. In the C library's heap, hundreds of megabytes that come in one thread and go in
another leave holes among what is short-lived: a process at 10 Mev/s grew by 5 to 13 MB a minute beside a
buffer that did not.
"""

from __future__ import annotations

import mmap
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

from velora_runtime.recording.items import Compressed, Edges, Said, Words

if TYPE_CHECKING:
    from velora_runtime.recording.items import Piece


SLAB_BYTES = 1 << 20


class ByteArena:
    """Arena of bytes in slabs. Single-threaded, but its copies may be read and freed by any thread.

    Args:
        slab_bytes: of a slab; a piece that does not fit on one gets its own.
    """

    def __init__(self, slab_bytes: int = SLAB_BYTES) -> None:
        self._slab_bytes = slab_bytes
        self._rest = memoryview(b"")

    def keep(self, data: bytes | memoryview) -> memoryview:
        """Copy the bytes; the copy is read-only, its memory is freed with its last reference."""
        n = len(data)
        if n > len(self._rest):
            self._rest = memoryview(mmap.mmap(-1, max(n, self._slab_bytes)))
        kept, self._rest = self._rest[:n], self._rest[n:]
        kept[:] = data
        return kept.toreadonly()


Kept = Words | Compressed | Edges | Said


class PreRollBuffer:
    """Buffer of the pieces of the last `keep_us`, fewer where they would take more than `room_bytes`.

    A chunk of words tells the time before its events, so it is kept until the chunk after it is too old.
    Words and pictures lie in memory of their own, not on the heap.

    Single-threaded: whoever adds.

    Args:
        keep_us: how far back.
        room_bytes: that the pieces may take together.
    """

    def __init__(self, keep_us: int, room_bytes: int) -> None:
        self.keep_us, self.room_bytes = keep_us, room_bytes
        self.held_bytes = 0
        self._arena = ByteArena()
        self._words: deque[Words] = deque()
        self._others: deque[Compressed | Edges | Said] = deque()
        self._reached_us: dict[bool, int] = {}

    def add(self, item: Kept) -> None:
        """Keep a piece, in place of those that are too old or exceed the room.

        A step back by more than is kept means a clock that began anew: then all before it is forgotten.
        """
        is_words = isinstance(item, Words)
        if item.t_us is not None:
            if self._reached_us.get(is_words, item.t_us) - item.t_us > self.keep_us:
                self._forget_all()
            self._reached_us[is_words] = item.t_us
        if isinstance(item, Words):
            self._words.append(replace(item, data=self._arena.keep(item.data)))
        elif isinstance(item, Compressed):
            self._others.append(replace(item, jpeg=self._arena.keep(item.jpeg)))
        else:
            self._others.append(item)
        self.held_bytes += item.n_bytes
        self._forget_old()
        while self.held_bytes > self.room_bytes and (self._words or self._others):
            self._forget_oldest()

    def items(self) -> list[Piece]:
        """Pieces that are kept: words first, then the rest, each in order of arrival."""
        return [*self._words, *self._others]

    @property
    def held_us(self) -> int:
        """Duration of the pieces that are kept."""
        times = [q[0].t_us for q in (self._words, self._others) if q and q[0].t_us is not None]
        return 0 if not times else max(0, max(self._reached_us.values()) - min(times))

    def _forget_all(self) -> None:
        self._words.clear()
        self._others.clear()
        self._reached_us.clear()
        self.held_bytes = 0

    def _forget_old(self) -> None:
        while len(self._words) > 1 and self._is_old(self._words[1].t_us):
            self.held_bytes -= self._words.popleft().n_bytes
        while self._others and self._is_old(self._others[0].t_us):
            self.held_bytes -= self._others.popleft().n_bytes

    def _is_old(self, t_us: int | None) -> bool:
        return t_us is not None and max(self._reached_us.values()) - t_us > self.keep_us

    def _forget_oldest(self) -> None:
        oldest_words = self._words[0].t_us if self._words else None
        oldest_other = self._others[0].t_us if self._others else None
        if self._words and (oldest_words is None or oldest_other is None or oldest_words <= oldest_other):
            self.held_bytes -= self._words.popleft().n_bytes
        else:
            self.held_bytes -= self._others.popleft().n_bytes
