"""Whatever an event camera gives, as words that can be written: one stream, on one clock."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_runtime.recording.files.items import Events, Words
from velora_runtime.recording.files.word_encoder import WordEncoder, WordShifter
from velora_runtime.recording.files.words import WordFormat

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_runtime.recording.files.words import Place


class EventWords:
    """Leaves words as they are, encodes arrays, and puts words right whose camera's clock began anew.

    Arrays become EVT2 and not EVT3, although that may be smaller: its times reach far enough for cameras that
    count from 1970.

    Single-threaded: the recorder's thread.

    Args:
        sensor: width and height, pixels; None where no events will come.

    Attributes:
        latest: what `finish` gave last.
    """

    def __init__(self, sensor: Sequence[int] | None) -> None:
        self.latest: Words | None = None
        self._sensor = sensor
        self._encoder: WordEncoder | None = None
        self._shifter: WordShifter | None = None
        self._shift_us = 0
        self._seen = -1
        self._number = 0

    def finish(self, item: Words | Events) -> Words | None:
        """The piece as it can be written; None if nothing is left of it, or it is older than one before.

        The latest piece may be asked for again.

        Raises:
            InputError: if its events are not in time order, or cannot be told in its encoding.
        """
        if item.number <= self._seen:
            return self.latest if item.number == self._seen else None
        follows = item.number == self._seen + 1
        self._seen = item.number
        self._number += 1 if follows else 2
        finished = self._encode(item) if isinstance(item, Events) else self._put_right(item, follows=follows)
        if finished is None:
            self._number -= 1
        else:
            self.latest = finished
        return finished

    def _encode(self, item: Events) -> Words:
        if self._sensor is None:
            raise InputError("events came from a camera whose size is not known")
        form = WordFormat("EVT2", (self._sensor[0], self._sensor[1]))
        self._encoder = self._encoder or WordEncoder(form)
        return self._made(form, *self._encoder.encode(item.batch))

    def _put_right(self, item: Words, *, follows: bool) -> Words | None:
        if not item.shift_us:
            return replace(item, number=self._number)
        if self._shifter is None or not follows or item.shift_us != self._shift_us:
            self._shifter = WordShifter(item.form, item.place, item.shift_us)
            self._shift_us = item.shift_us
        made = self._shifter.shift(item.data)
        return None if made is None else self._made(item.form, *made)

    def _made(self, form: WordFormat, place: Place, data: bytes) -> Words:
        return Words(form, data, place, self._number)
