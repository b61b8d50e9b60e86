"""Writers of EVT2, EVT2.1 and EVT3 `.raw` files, with external triggers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.errors import InputError
from velora_edge.events.writers._raw_kernels import WIDTH, encode_evt2, encode_evt3, encode_evt21
from velora_edge.events.writers.base import EventWriter

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

_ROOM_WORDS = 1 << 17


class RawWriter(EventWriter):
    """What the three formats share: header, merge of events and edges, bounded memory."""

    holds_triggers: ClassVar[bool] = True
    is_ordered: ClassVar[bool] = True
    largest_side_px: ClassVar[int] = 2048
    largest_id: ClassVar[int] = 31
    word: ClassVar[str]
    header: ClassVar[tuple[str, ...]]
    encode: ClassVar[Callable[..., int]]

    def _open(self, path: Path) -> None:
        self._file = path.open("wb")
        lines = (
            "camera_integrator_name Prophesee",
            *self.header,
            f"geometry {self.width}x{self.height}",
            "end",
        )
        text = "".join(f"% {line}\n" for line in lines)
        self._file.write(text.format(width=self.width, height=self.height).encode("ascii"))
        self._state = np.full(4, -1, np.int64)
        self._state[WIDTH] = self.width
        self._words = np.empty(_ROOM_WORDS, np.dtype(self.word))
        self._pending = TriggerBatch.empty()

    def _write(self, batch: EventBatch) -> None:
        due = int(np.searchsorted(self._pending.t_us, batch.t_us[-1], side="right"))
        self._encode(batch, _cut(self._pending, slice(due)))
        self._pending = _cut(self._pending, slice(due, None))

    def _write_triggers(self, triggers: TriggerBatch) -> None:
        self._check_triggers(triggers, self._pending)
        if triggers.id.max() > self.largest_id or triggers.p.max() > 1:
            raise InputError(
                f"expected trigger inputs 0 to {self.largest_id} and edges 0 or 1 for {self.format}, "
                f"got input {triggers.id.max()}, edge {triggers.p.max()}",
                path=self.path,
            )
        self._pending = TriggerBatch.concatenate([self._pending, triggers])

    def _encode(self, batch: EventBatch, triggers: TriggerBatch) -> None:
        events = tuple(np.ascontiguousarray(a) for a in (batch.t_us, batch.x, batch.y, batch.p))
        edges = tuple(np.ascontiguousarray(a) for a in (triggers.t_us, triggers.id, triggers.p))
        at = np.zeros(2, np.int64)
        while at[0] < len(batch) or at[1] < len(triggers):
            n = type(self).encode(events, edges, self._state, at, self._words)
            self._file.write(self._bytes(self._words[:n]))

    def _bytes(self, words: NDArray[Any]) -> memoryview:
        return words.data

    def _finish(self) -> None:
        self._encode(EventBatch.empty(), self._pending)
        self._file.close()

    def _discard(self) -> None:
        self._file.close()


class EVT3Writer(RawWriter):
    """16-bit words; the smallest of the three where many pixels of a row fire together."""

    format = "EVT3"
    end_us = 1 << 44  # half a year; beyond, a decoder would have to be led through millions of wraps
    largest_id = 15
    word = "<u2"
    header = ("evt 3.0", "format EVT3;height={height};width={width}")
    encode = staticmethod(encode_evt3)


class EVT2Writer(RawWriter):
    """32-bit words, one an event."""

    format = "EVT2"
    end_us = 1 << 52
    word = "<u4"
    header = ("evt 2.0", "format EVT2;height={height};width={width}")
    encode = staticmethod(encode_evt2)


class EVT21Writer(RawWriter):
    """64-bit words, little endian, one for up to 32 pixels of a row."""

    format = "EVT2.1"
    end_us = 1 << 52
    word = "<u8"
    header = ("endianness little", "evt 2.1", "format EVT21;height={height};width={width}")
    encode = staticmethod(encode_evt21)


def _cut(triggers: TriggerBatch, which: slice) -> TriggerBatch:
    return TriggerBatch(triggers.t_us[which], triggers.id[which], triggers.p[which])
