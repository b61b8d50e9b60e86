"""Event recordings made for a test."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from velora_edge.datatypes import EventBatch, TriggerBatch
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path


def write_events(
    path: Path,
    *,
    start_us: int = 7_000_000,
    duration_us: int = 400_000,
    count: int = 4000,
    triggers_us: Sequence[int] = (),
    sensor: tuple[int, int] = (64, 48),
    seed: int = 3,
) -> EventBatch:
    """An EVT3 file of events at random places, evenly in time; triggers are rising edges on input 0."""
    rng = np.random.default_rng(seed)
    batch = EventBatch(
        start_us + np.arange(count, dtype=np.int64) * duration_us // count,
        rng.integers(0, sensor[0], count, dtype=np.uint16),
        rng.integers(0, sensor[1], count, dtype=np.uint16),
        rng.integers(0, 2, count, dtype=np.uint8),
    )
    n = len(triggers_us)
    edges = TriggerBatch(np.array(triggers_us, np.int64), np.zeros(n, np.uint8), np.ones(n, np.uint8))
    with open_writer(path, "EVT3", width=sensor[0], height=sensor[1]) as writer:
        writer.write_triggers(edges)
        writer.write(batch)
    return batch
