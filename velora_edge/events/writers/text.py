"""Writer of text: a line for each event."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.events.kernels._intrinsics import kernel
from velora_edge.events.writers.base import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.datatypes import EventBatch


LONGEST_LINE = 20 + 5 + 5 + 3 + 4
"""Characters of the longest line: t, x, y, p, three commas and the line's end."""
_MINUS, _ZERO, _COMMA, _NEWLINE = 45, 48, 44, 10


@kernel
def put_number(value: Any, text: Any, at: Any, end: Any) -> Any:
    """Write an int64 in decimal at `at`, and the character `end` after it; return the place after both."""
    rest = np.uint64(value)
    if value < 0:
        rest = ~rest + np.uint64(1)
        text[at] = _MINUS
        at += 1
    last = at
    ten = np.uint64(10)
    scale = rest
    while scale >= ten:
        scale //= ten
        last += 1
    for place in range(last, at - 1, -1):
        text[place] = np.uint64(_ZERO) + rest % ten
        rest //= ten
    text[last + 1] = end
    return last + 2


@kernel
def encode_lines(t: Any, x: Any, y: Any, p: Any, text: Any) -> Any:
    """Write a line `t,x,y,p` for each event, as bytes; return how many bytes."""
    at = 0
    for i in range(len(t)):
        at = put_number(t[i], text, at, _COMMA)
        at = put_number(np.int64(x[i]), text, at, _COMMA)
        at = put_number(np.int64(y[i]), text, at, _COMMA)
        at = put_number(np.int64(p[i]), text, at, _NEWLINE)
    return at


_LINES = 1 << 15


class CSVWriter(EventWriter):
    """A header `t,x,y,p`, then numbers: microseconds, column, row, polarity 0 or 1; in any order of time."""

    format = "CSV"

    def _open(self, path: Path) -> None:
        self._file = path.open("wb")
        self._file.write(b"t,x,y,p\n")
        self._text = np.empty(_LINES * LONGEST_LINE, np.uint8)

    def _write(self, batch: EventBatch) -> None:
        for start in range(0, len(batch), _LINES):
            part = batch[start : start + _LINES]
            n = encode_lines(part.t_us, part.x, part.y, part.p, self._text)
            self._file.write(self._text[:n].data)

    def _finish(self) -> None:
        self._file.close()

    def _discard(self) -> None:
        self._file.close()
