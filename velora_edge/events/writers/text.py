"""Writer of text: a line for each event."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.events.writers._text_kernels import LONGEST_LINE, encode_lines
from velora_edge.events.writers.base import EventWriter

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.datatypes import EventBatch

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
