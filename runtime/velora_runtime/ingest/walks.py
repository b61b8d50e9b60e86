"""Walking over one packet after the other: raw words, or decoded events."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_decoder import new_arrays, take_batch
from velora_edge.events.formats.raw.raw_walker import RawWalker, WalkerPlace
from velora_edge.events.kernels import _array_kernels as kernels
from velora_edge.events.kernels._sink_kernels import CountSink, FrameSink
from velora_runtime.ingest.packets import EventPacket
from velora_runtime.ingest.scanner import restore_place

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding, EventTap, FrameAccumulator

HARMLESS = {"EVT2": b"\0\0\0\xe0", "EVT2.1": bytes(8), "EVT3": b"\0\xe0"}
"""Words that say nothing, to load the kernels with."""


class Walk(Protocol):
    """Walks the packet that it was given.

    Attributes:
        tap: gets the words, or the events, before they are walked.
    """

    tap: EventTap | None

    def load(self, packet: EventPacket, *, follows: bool, is_new: bool = True) -> None:
        """Stand before a packet.

        Args:
            packet: is walked next.
            follows: it comes right after the one before.
            is_new: the tap has not had it.
        """

    def place(self) -> Any:
        """Where it stands, for `return_to`."""

    def return_to(self, packet: EventPacket | None, place: Any) -> None:
        """Stand where it stood, in that packet, or between two."""

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """About `most` events before `t1_us`, and whether any are left."""

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels; nothing is walked, and the frame is left empty."""


class WordWalk:
    """Raw words, straight into frames; times are the camera's."""

    def __init__(self, encoding: Encoding, sensor: tuple[int, int], is_legacy: bool) -> None:
        self.walker = RawWalker(encoding, sensor, is_legacy)
        self.tap: EventTap | None = None

    def load(self, packet: EventPacket, *, follows: bool, is_new: bool = True) -> None:
        """Stand before the packet's words."""
        words, before = packet.words, packet.before
        assert words is not None
        assert before is not None
        if not follows:
            restore_place(self.walker.state, before)
            if is_new and self.tap is not None:
                self.tap.begin(packet.shift_us)
        self._fill(words, is_new=is_new)
        self.walker.take_triggers()  # the camera's thread has found them

    def place(self) -> WalkerPlace:
        """Where it stands, for `return_to`."""
        return self.walker.place()

    def return_to(self, packet: EventPacket | None, place: WalkerPlace) -> None:
        """Stand where it stood, in that packet, or between two."""
        if packet is not None and packet.words is not None:
            self._fill(packet.words, is_new=False)
        self.walker.return_to(place)

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""
        is_left = self.walker.walk(t1_us, CountSink())
        return self.walker.walked, is_left

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""
        self.walker.state[s.PLACED] = 0
        is_left = self.walker.walk(t1_us, FrameSink(frame.table, frame.state))
        frame.events += int(self.walker.state[s.PLACED])
        return self.walker.walked, is_left

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """About `most` events before `t1_us`, and whether any are left."""
        arrays = new_arrays(most)
        self.walker.state[s.PLACED] = 0
        is_left = self.walker.walk(t1_us, arrays)
        return take_batch(arrays, int(self.walker.state[s.PLACED])), is_left

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels by walking a word that says nothing."""
        other = WordWalk(self.walker.encoding, self.walker.sensor, self.walker.is_legacy)
        other._fill(HARMLESS[self.walker.encoding])
        other.count(1)
        other._fill(HARMLESS[self.walker.encoding])
        other.accumulate(1, frame)
        other._fill(HARMLESS[self.walker.encoding])
        other.read(1, 1)

    def _fill(self, words: bytes, *, is_new: bool = True) -> None:
        def read_into(memory: memoryview) -> int:
            memory[: len(words)] = words
            return len(words)

        self.walker.tap = self.tap if is_new else None
        self.walker.fill(read_into)


class BatchWalk:
    """Decoded events, into frames; times are the stream's."""

    def __init__(self) -> None:
        self.tap: EventTap | None = None
        self._packet: EventPacket | None = None
        self._position = 0
        self._counts = np.zeros(1, np.int64)

    def load(self, packet: EventPacket, *, follows: bool, is_new: bool = True) -> None:
        """Stand before the packet's events."""
        self._packet, self._position = packet, 0
        if is_new and self.tap is not None and packet.batch is not None and len(packet.batch):
            if not follows:
                self.tap.begin(0)
            self.tap.take_batch(packet.batch)

    def place(self) -> int:
        """Where it stands, for `return_to`."""
        return self._position

    def return_to(self, packet: EventPacket | None, place: int) -> None:
        """Stand where it stood, in that packet, or between two."""
        self._packet, self._position = packet, place

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Pass over the events before `t1_us`: how many, and whether any are left."""
        batch, start = self._batch(), self._position
        self._position = int(kernels.find_end(batch.t_us, start, t1_us))
        return self._position - start, self._position < len(batch)

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame: how many, and whether any are left."""
        batch, start = self._batch(), self._position
        self._counts[0] = 0
        self._position = int(
            kernels.accumulate_arrays(
                batch.t_us, batch.x, batch.y, batch.p, start, t1_us, frame.table, frame.state, self._counts
            )
        )
        frame.events += int(self._counts[0])
        return self._position - start, self._position < len(batch)

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """At most `most` events before `t1_us`, and whether any are left."""
        batch, start = self._batch(), self._position
        self._position = int(kernels.find_end(batch.t_us[: start + most], start, t1_us))
        return batch[start : self._position], self._position < len(batch)

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels by walking no events."""
        other = BatchWalk()
        other.load(EventPacket(0, 0, 0, TriggerBatch.empty(), batch=EventBatch.empty()), follows=True)
        other.count(1)
        other.accumulate(1, frame)
        other.read(1, 1)

    def _batch(self) -> EventBatch:
        assert self._packet is not None
        assert self._packet.batch is not None
        return self._packet.batch
