"""A stream of events behind filters: whoever packs frames from it does not see that they are there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch
from velora_edge.events.base import EventStream
from velora_edge.events.kernels import _array_kernels as kernels

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_edge.datatypes import TriggerBatch
    from velora_edge.events.base import EventTap, FrameAccumulator
    from velora_edge.events.filters.filters import FilterChain

_BATCH_EVENTS = 1 << 17
_FAR_AHEAD = np.iinfo(np.int64).max


class FilteredStream(EventStream):
    """The events of another stream that pass filters.

    Events are decoded to arrays for that, where they went straight into frames before. Windows stay where
    they are: `t_next_us` is the other stream's, and what filters hold back they give at the window's end. A
    listener gets everything, unfiltered. What was dropped is counted in the chain, and nowhere else. Times
    are the stream's, so `shift_us` is 0.

    Single-threaded: whoever packs frames from it.

    Args:
        stream: the other one; closed with this one.
        chain: of filters for its sensor.

    Raises:
        TypeError: from walking over events, if the other stream gives its events to frames only.
    """

    def __init__(self, stream: EventStream, chain: FilterChain) -> None:
        self.width, self.height, self.is_live = stream.width, stream.height, stream.is_live
        self.chain = chain
        self._stream = stream
        self._counts = np.zeros(1, np.int64)

    @property
    def t_next_us(self) -> int | None:
        """Time of the other stream's next event, which may not pass; None at its end."""
        return self._stream.t_next_us

    def await_window(self, t0_us: int, t1_us: int, meanwhile: Callable[[], None] | None = None) -> bool:
        """Wait until all events of [t0, t1) are there, or will not come; whether the camera was there."""
        return self._stream.await_window(t0_us, t1_us, meanwhile)

    def warm_up(self, frame: FrameAccumulator) -> None:
        """Load the kernels of the other stream and of the filters; adds nothing."""
        self._stream.warm_up(frame)
        self._add(self.chain.apply(EventBatch.empty()), frame)

    def skip_until(self, t_us: int) -> int:
        """Pass over the events before `t_us`, through the filters; return how many passed these."""
        skipped = 0
        while len(batch := self._stream.read_batch(_BATCH_EVENTS, t_us)):
            skipped += len(self.chain.apply(batch))
        return skipped + len(self.chain.flush(t_us))

    def accumulate_until(self, t1_us: int, frame: FrameAccumulator) -> int:
        """Add the events before `t1_us` that pass to the frame; return how many passed."""
        self._check_sensor(frame)
        passed = 0
        self._counts[0] = 0
        while len(batch := self._stream.read_batch(_BATCH_EVENTS, t1_us)):
            passed += self._add(self.chain.apply(batch), frame)
        passed += self._add(self.chain.flush(t1_us), frame)
        frame.events += int(self._counts[0])
        return passed

    def read_batch(self, most: int, t1_us: int) -> EventBatch:
        """The next events before `t1_us` that pass; none only where there are no more before it."""
        while len(batch := self._stream.read_batch(most, t1_us)):
            passed = self.chain.apply(batch)
            if len(passed):
                return passed
        return self.chain.flush(t1_us)

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges walked over since the last call."""
        return self._stream.take_triggers()

    def listen(self, tap: EventTap) -> None:
        """Let `tap` have what the other stream takes in from now on."""
        self._stream.listen(tap)

    def close(self) -> None:
        """Let go of files and devices."""
        self._stream.close()

    def _add(self, batch: EventBatch, frame: FrameAccumulator) -> int:
        columns = batch.t_us, batch.x, batch.y, batch.p
        kernels.accumulate_arrays(*columns, 0, _FAR_AHEAD, frame.table, frame.state, self._counts)
        return len(batch)
