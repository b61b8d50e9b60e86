"""iniVation's own network writer streams a recording at its own speed: FILE PORT.

It says `ready`, begins when somebody connects, gives the recording again and again, and is ended by a signal.
"""

from __future__ import annotations

import sys
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import dv_processing as dv  # type: ignore[import-not-found,unused-ignore]

from velora_edge.events.registry import open_events

if TYPE_CHECKING:
    from velora_edge.datatypes import EventBatch

SLICE_US = 10_000
REPEATS = 100


def make_slices(batch: EventBatch) -> list[tuple[int, Any]]:
    """Event stores of 10 ms, each with the time of its end."""
    begin_us, slices = int(batch.t_us[0]), []
    ends_us = range(begin_us + SLICE_US, int(batch.t_us[-1]) + SLICE_US + 1, SLICE_US)
    start = 0
    for end_us in ends_us:
        end = int(batch.t_us.searchsorted(end_us))
        store = dv.EventStore()
        part = batch[start:end]
        for t, x, y, p in zip(*(a.tolist() for a in (part.t_us, part.x, part.y, part.p)), strict=True):
            store.push_back(t, x, y, bool(p))
        slices.append((end_us - begin_us, store))
        start = end
    return slices


def main(path: str, port: int) -> None:
    with open_events(path) as reader:
        size, batch = (reader.width, reader.height), reader.read()
    slices = make_slices(batch)
    writer = dv.io.NetworkWriter("127.0.0.1", port, dv.io.Stream.EventStream(0, "events", "PEER", size))
    print("ready", flush=True)
    while not writer.getClientCount():
        time.sleep(0.001)
    begin_s = time.monotonic()
    for turn in range(REPEATS):
        for due_us, store in slices:
            time.sleep(max(0.0, begin_s + due_us / 1e6 - time.monotonic()))
            if not store.isEmpty():
                writer.writeEvents(store)
        begin_s = time.monotonic()
        later_us = (turn + 1) * (slices[-1][0] + SLICE_US)
        slices = make_slices(replace(batch, t_us=batch.t_us + later_us))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
