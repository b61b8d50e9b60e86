"""When pairs are made while the RGB camera is there, away, or gone for good."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import pytest
from velora_runtime.ingest.packets import CameraState
from velora_runtime.pipeline.frame_source import LiveInstants
from velora_runtime.queues import Channel

from tests.fakes import FakeClock
from velora_edge.preprocessing.packer import PairRequest

WINDOW_US = 20_000


class Stream:
    """An event camera whose time is the host's, until it ends."""

    def __init__(self, clock: FakeClock) -> None:
        self.t_next_us: int | None = 0
        self.is_known = True
        self._clock = clock

    def now_us(self) -> int | None:
        return self._clock.t_us if self.is_known else None


def make(
    state: CameraState, *, events: bool = True
) -> tuple[LiveInstants, FakeClock, Any, Any, threading.Event]:
    clock, stop = FakeClock(), threading.Event()
    rgb, stream = SimpleNamespace(state=state), Stream(clock) if events else None
    return LiveInstants(rgb, stream, WINDOW_US, clock, stop), clock, rgb, stream, stop  # type: ignore[arg-type]


def ticks(instants: LiveInstants, clock: FakeClock, until_us: int) -> list[int]:
    """Asks every 5 ms, as the packing thread does."""
    found = []
    while clock.t_us < until_us:
        clock.t_us += 5_000
        if (instant := instants.tick(clock.t_us)) is not None:
            instants._last_us = instant.t_us
            found.append(instant.t_us)
    return found


def test_while_pictures_come_they_alone_make_pairs() -> None:
    instants, clock, _, _, _ = make(CameraState.LIVE)
    assert ticks(instants, clock, 200_000) == []


@pytest.mark.parametrize("state", [CameraState.STALLED, CameraState.LOST, CameraState.ENDED])
def test_while_they_do_not_pairs_are_made_at_an_even_rate(state: CameraState) -> None:
    instants, clock, _, _, _ = make(state)
    assert ticks(instants, clock, 105_000) == [5_000, 25_000, 45_000, 65_000, 85_000, 105_000]


def test_after_a_stall_of_the_machine_the_windows_begin_anew() -> None:
    instants, clock, _, _, _ = make(CameraState.LOST)
    assert ticks(instants, clock, 25_000) == [5_000, 25_000]
    clock.t_us += 95_000
    assert ticks(instants, clock, 145_000) == [125_000, 145_000]


def test_without_an_event_camera_or_before_its_first_data_there_is_nothing_to_pair() -> None:
    alone, clock, _, _, _ = make(CameraState.LOST, events=False)
    assert ticks(alone, clock, 100_000) == []
    silent, clock, _, stream, _ = make(CameraState.LOST)
    stream.is_known = False
    assert ticks(silent, clock, 100_000) == []


def test_pictures_that_are_there_come_first_and_both_cameras_ends_end_it() -> None:
    instants, _, _, stream, _ = make(CameraState.LIVE)
    frames: Channel[PairRequest] = Channel(4, "newest")
    for t_us in (10, 20):
        frames.put(PairRequest(t_us, None, 0))
    frames.finish()
    found = instants.instants(frames, lambda: None)
    assert [next(found).t_us, next(found).t_us] == [10, 20]
    stream.t_next_us = None
    assert list(found) == []


def test_a_run_that_is_to_end_makes_no_more_pairs() -> None:
    instants, _, _, _, stop = make(CameraState.LOST)
    stop.set()
    assert list(instants.instants(Channel(1, "newest"), lambda: None)) == []
