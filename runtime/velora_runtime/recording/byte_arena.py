"""Memory for bytes that stay for seconds and go in the order they came.

In the C library's heap, hundreds of megabytes that come in one thread and go in another leave holes among
what is short-lived: a process at 10 Mev/s grew by 5 to 13 MB a minute beside a ring that did not. A slab is a
mapping of its own; it goes back to the system as a whole with the last piece on it.
"""

from __future__ import annotations

import mmap

SLAB_BYTES = 1 << 20


class ByteArena:
    """Copies bytes to arena. Single-threaded, but what it gives may be read and let go by any thread.

    Args:
        slab_bytes: of a slab; a piece that does not fit on one gets its own.
    """

    def __init__(self, slab_bytes: int = SLAB_BYTES) -> None:
        self._slab_bytes = slab_bytes
        self._rest = memoryview(b"")

    def keep(self, data: bytes | memoryview) -> memoryview:
        """A copy of the bytes, which nobody can change; its memory is free once it is let go."""
        n = len(data)
        if n > len(self._rest):
            self._rest = memoryview(mmap.mmap(-1, max(n, self._slab_bytes)))
        kept, self._rest = self._rest[:n], self._rest[n:]
        kept[:] = data
        return kept.toreadonly()
