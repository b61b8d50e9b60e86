"""Events as words in memory: of cameras that have no words, and of words whose times have to be changed."""

from __future__ import annotations

import io
import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from velora_edge.events.formats.raw.raw_decoder import RawDecoder
from velora_edge.events.writers._raw_kernels import HIGH
from velora_edge.events.writers.raw import EVT2Writer, EVT3Writer, EVT21Writer, RawWriter
from velora_runtime.recording.files.words import Place, lead_in

if TYPE_CHECKING:
    from velora_edge.datatypes import EventBatch, TriggerBatch
    from velora_runtime.recording.files.words import WordFormat

_KINDS: dict[str, tuple[type[RawWriter], int]] = {
    "EVT2": (EVT2Writer, 6),
    "EVT2.1": (EVT21Writer, 6),
    "EVT3": (EVT3Writer, 12),
}
"""By encoding: its writer, and the bits of a time below TIME_HIGH."""


class WordEncoder:
    """Writes one stream of words, from the first batch to the last.

    Single-threaded: whoever encodes.

    Args:
        form: of the words.

    Raises:
        InputError: if the encoding has no room for such a sensor.
    """

    def __init__(self, form: WordFormat) -> None:
        self._form = form
        kind, self._low_bits = _KINDS[form.encoding]
        self._writer = _writing_to_memory(kind, form.sensor)
        self._has_begun = False

    def encode(self, batch: EventBatch, edges: TriggerBatch | None = None) -> tuple[Place, bytes]:
        """Where the stream stood before these events, and their words.

        Args:
            batch: events in time order, at least one; not changed.
            edges: trigger edges of the same time, or None.

        Raises:
            InputError: if they are not in time order, or cannot be told in this encoding.
        """
        writer, memory = self._writer, self._writer.memory
        first_us = int(batch.t_us[0])
        if edges is not None and len(edges):
            first_us = min(first_us, int(edges.t_us[0]))
        if not self._has_begun and first_us >= 0:
            writer.stand_at(first_us >> self._low_bits)
            self._has_begun = True
        place = Place(writer.high << self._low_bits)
        if edges is not None:
            writer.write_triggers(edges)
        writer.write(batch)
        data = memory.getvalue()
        memory.seek(0)
        memory.truncate()
        return place, self._in_order(data)

    def _in_order(self, data: bytes) -> bytes:
        """Writers of EVT2.1 put the typed half second."""
        if self._form.encoding == "EVT2.1" and self._form.is_legacy:
            return np.frombuffer(data, "<u4").reshape(-1, 2)[:, ::-1].tobytes()
        return data


class WordShifter:
    """Words of a camera whose clock began anew, told on the clock before: decoded and encoded again.

    Single-threaded: whoever encodes.

    Args:
        form: of the words.
        place: where the camera's stream stands before the first of them; None at its beginning.
        shift_us: what to add to its times.
    """

    def __init__(self, form: WordFormat, place: Place | None, shift_us: int) -> None:
        self._shift_us = shift_us
        self._decoder = RawDecoder(form.encoding, form.sensor, form.is_legacy)
        self._encoder = WordEncoder(form)
        if place is not None:
            self._decoder.feed(lead_in(form, place))

    def shift(self, data: bytes | memoryview) -> tuple[Place, bytes] | None:
        """Where the new stream stands before these words, and the words; None where no event is in them.

        Raises:
            InputError: if the events are not in time order, or before the clock's zero.
        """
        batch, edges = self._decoder.feed(data), self._decoder.take_triggers()
        if not len(batch):
            return None
        moved_edges = replace(edges, t_us=edges.t_us + self._shift_us)
        return self._encoder.encode(replace(batch, t_us=batch.t_us + self._shift_us), moved_edges)


class _MemoryWriter(RawWriter):
    """What a writer of raw files needs to write to memory."""

    memory: io.BytesIO

    def _open(self, path: Path) -> None:
        super()._open(Path(os.devnull))
        self._file.close()
        self.memory = io.BytesIO()
        self._file = self.memory  # type: ignore[assignment]

    @property
    def high(self) -> int:
        """The TIME_HIGH that a decoder has seen last."""
        return int(self._state[HIGH])

    def stand_at(self, high: int) -> None:
        """Write as if a decoder had seen this TIME_HIGH."""
        self._state[HIGH] = high


def _writing_to_memory(kind: type[RawWriter], sensor: tuple[int, int]) -> _MemoryWriter:
    made: type[_MemoryWriter] = type(f"Memory{kind.__name__}", (_MemoryWriter, kind), {})
    return made("events", *sensor)
