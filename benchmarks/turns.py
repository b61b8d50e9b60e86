"""Timings in turn, so that all ways see the same machine, and their percentiles."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

Way = TypeVar("Way")


def take_turns(
    ways: dict[Way, tuple[Callable[[], object], int]],
    rounds: int,
    *,
    clock: Callable[[], float] = time.perf_counter,
    is_over: Callable[[], bool] = lambda: False,
    told: Callable[[int, dict[Way, list[float]]], None] = lambda number, times: None,
) -> dict[Way, list[float]]:
    """Times in ms by way; in each round every way runs as often as it says, in turn.

    Args:
        ways: what is run, and how often in a round.
        rounds: at most.
        clock: seconds; `time.process_time` leaves out what other programs take of the processor.
        is_over: asked before each round but the first.
        told: called after each round with its number and the times so far.
    """
    times: dict[Way, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        if number and is_over():
            break
        for name, (run, repeats) in ways.items():
            for _ in range(repeats):
                start = clock()
                run()
                times[name].append((clock() - start) * 1e3)
        told(number + 1, times)
    return times


def percentiles(taken: Sequence[float]) -> tuple[float, float]:
    """Median and 99th percentile."""
    p50, p99 = np.percentile(taken, [50, 99])
    return float(p50), float(p99)
