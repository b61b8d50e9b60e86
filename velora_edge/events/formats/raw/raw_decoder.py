"""Raw bytes pushed in as they come, events out: for live byte streams."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.formats.raw import _raw_state as s
from velora_edge.events.formats.raw.raw_walker import NEVER, RawWalker
from velora_edge.events.kernels._sink_kernels import ArraySink

if TYPE_CHECKING:
    from velora_edge.events.base import Encoding

BATCH_EVENTS = 1 << 17


def new_arrays(events: int) -> ArraySink:
    """Arrays with room for about that many events, at least for those of one block."""
    n = max(events, 3 * s.BLOCK)
    return ArraySink(
        np.empty(n, np.int64), np.empty(n, np.uint16), np.empty(n, np.uint16), np.empty(n, np.uint8)
    )


def take_batch(arrays: ArraySink, events: int) -> EventBatch:
    """The events at the front of the arrays: views, or copies where little of the arrays is used."""
    batch = EventBatch(arrays.t_us[:events], arrays.x[:events], arrays.y[:events], arrays.p[:events])
    if events * 2 >= len(arrays.t_us):
        return batch
    return EventBatch(batch.t_us.copy(), batch.x.copy(), batch.y.copy(), batch.p.copy())


class RawDecoder:
    """Decodes a stream of words without its header, split anywhere.

    Single-threaded: whoever feeds it.

    Args:
        encoding: EVT2, EVT2.1 or EVT3.
        sensor: width and height, pixels.
        is_legacy: EVT2.1's order of halves: True with the typed half first.
    """

    def __init__(self, encoding: Encoding, sensor: tuple[int, int], is_legacy: bool = True) -> None:
        self._walker = RawWalker(encoding, sensor, is_legacy)

    def feed(self, data: bytes | bytearray | memoryview) -> EventBatch:
        """The events that these bytes complete, in the order of the stream."""
        rest = memoryview(data).cast("B")

        def read_into(memory: memoryview) -> int:
            nonlocal rest
            n = min(len(memory), len(rest))
            memory[:n], rest = rest[:n], rest[n:]
            return n

        batches = []
        while self._walker.fill(read_into):
            more = True
            while more:
                arrays = new_arrays(BATCH_EVENTS)
                self._walker.state[s.PLACED] = 0
                more = self._walker.walk(NEVER, arrays)
                batches.append(take_batch(arrays, int(self._walker.state[s.PLACED])))
        return EventBatch.concatenate(batches)

    def take_triggers(self) -> TriggerBatch:
        """The trigger edges decoded since the last call."""
        return self._walker.take_triggers()

    def warnings(self) -> list[str]:
        """What was lost or odd so far, one sentence each; at the stream's end, its cut last word too."""
        return self._walker.warnings()
