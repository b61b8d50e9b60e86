"""Streams of chunks, raw words or batches of events, accumulated into frames by a cursor."""

from __future__ import annotations

from abc import abstractmethod
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.base import EventStream
from velora_edge.events.kernels import _frame_kernels as kernels

if TYPE_CHECKING:
    from velora_edge.events.base import EventTap, FrameAccumulator

EDGES_KEPT = 4096
"""Batches of edges that a listener has had and `take_triggers` may still ask for."""


class ChunkCursor(Protocol):
    """Cursor: a place in a chunk of events; times are the camera's."""

    @property
    def is_used_up(self) -> bool:
        """Whether no event of the chunk is left."""

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Skip the events before `t1_us`; return how many, and whether any are left."""

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame; return how many, and whether any are left."""

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """Read about `most` events before `t1_us`; return them, and whether any are left."""


class BatchCursor:
    """A cursor over a batch of decoded events."""

    def __init__(self) -> None:
        self._batch, self._position = EventBatch.empty(), 0
        self._counts = np.zeros(1, np.int64)

    def load(self, batch: EventBatch, tap: EventTap | None) -> None:
        """Load a batch, which the listener gets."""
        self._batch, self._position = batch, 0
        if tap is not None and len(batch):
            tap.take_batch(batch)

    @property
    def is_used_up(self) -> bool:
        """Whether no event of the batch is left."""
        return self._position >= len(self._batch)

    @property
    def t_next_us(self) -> int:
        """Time of the next event, of which there must be one."""
        return int(self._batch.t_us[self._position])

    @property
    def rest(self) -> EventBatch:
        """The events that are left."""
        return self._batch[self._position :]

    def place(self) -> int:
        """Place in the batch, for `return_to`."""
        return self._position

    def return_to(self, batch: EventBatch | None, place: int) -> None:
        """Return to a place in that batch, or before any."""
        self._batch, self._position = EventBatch.empty() if batch is None else batch, place

    def count(self, t1_us: int) -> tuple[int, bool]:
        """Skip the events before `t1_us`; return how many, and whether any are left."""
        batch, start = self._batch, self._position
        self._position = int(kernels.find_end(batch.t_us, start, t1_us))
        return self._position - start, self._position < len(batch)

    def accumulate(self, t1_us: int, frame: FrameAccumulator) -> tuple[int, bool]:
        """Add the events before `t1_us` to the frame; return how many, and whether any are left."""
        batch, start = self._batch, self._position
        self._counts[0] = 0
        self._position = int(
            kernels.accumulate_arrays(
                batch.t_us, batch.x, batch.y, batch.p, start, t1_us, frame.table, frame.state, self._counts
            )
        )
        frame.events += int(self._counts[0])
        return self._position - start, self._position < len(batch)

    def read(self, most: int, t1_us: int) -> tuple[EventBatch, bool]:
        """Read at most `most` events before `t1_us`; return them, and whether any are left."""
        batch, start = self._batch, self._position
        self._position = int(kernels.find_end(batch.t_us[: start + most], start, t1_us))
        return batch[start : self._position], self._position < len(batch)

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels on no events; the frame is left empty."""
        other = BatchCursor()
        other.count(1)
        other.accumulate(1, frame)
        other.read(1, 1)


class ChunkStream(EventStream):
    """Stream of events in chunks: of a file, of a camera, of a simulated sensor.

    A subclass says where chunks come from (`_load`) and which edges were walked over (`_take_edges`).

    Single-threaded: whoever packs frames from it.

    Args:
        cursor: stands in the chunk.
    """

    def __init__(self, cursor: ChunkCursor) -> None:
        self._cursor = cursor
        self._walked = 0
        """Events of the chunk that were walked over; a subclass that needs it begins anew with each."""
        self._told: deque[TriggerBatch] = deque(maxlen=EDGES_KEPT)

    @abstractmethod
    def _load(self) -> bool:
        """Load the next chunk where this one is used up; return False where there is none."""

    @abstractmethod
    def _take_edges(self) -> TriggerBatch:
        """Return the trigger edges passed since the last call."""

    def skip_until(self, t_us: int) -> int:
        """Skip the events before `t_us`; return how many they were."""
        skipped = 0
        while self._load():
            n, is_left = self._cursor.count(t_us - self.shift_us)
            skipped += n
            self._walked += n
            if is_left:
                break
        self._tell_edges()
        return skipped

    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` to the frame; return how many were walked over.

        Where the camera's clock begins anew, it stops: the frame's window is on the clock before.
        """
        self._check_sensor(frame)
        walked, shift_us = 0, self.shift_us
        while self._load() and self.shift_us == shift_us:
            n, is_left = self._cursor.accumulate(t1_us - shift_us, frame)
            walked += n
            self._walked += n
            if is_left:
                break
        self._tell_edges()
        return walked

    def read_batch(self, most: int, t1_us: int) -> EventBatch:
        """The next events before `t1_us`, on the stream's clock: about `most`, none if none are there."""
        found = EventBatch.empty()
        while self._load():
            shift_us = self.shift_us
            batch, is_left = self._cursor.read(most, t1_us - shift_us)
            self._walked += len(batch)
            if len(batch):
                found = replace(batch, t_us=batch.t_us + shift_us) if shift_us else batch
                break
            if is_left:
                break
        self._tell_edges()
        return found

    def take_triggers(self) -> TriggerBatch:
        """Return the trigger edges passed since the last call."""
        self._tell_edges()
        taken = TriggerBatch.concatenate([*self._told, self._take_edges()])
        self._told.clear()
        return taken

    def _tell_edges(self) -> None:
        """Give the listener, where there is one, the edges that were passed."""
        if self._tap is not None and len(edges := self._take_edges()):
            self._told.append(edges)
            self._tap.take_edges(edges)
