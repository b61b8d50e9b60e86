"""What the user asks for, and the way by which live frames find their time."""

from __future__ import annotations

import threading
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from velora_runtime.cameras.live_sync import HostSync, OnlineTriggerSync, choose_live_sync
from velora_runtime.clocks import ClockMap

from tests.fakes import FakeClock
from tests.fakes_cameras import rising
from velora_edge.datatypes import RGBFrame
from velora_edge.errors import InputError
from velora_edge.preprocessing.sync import Sync, SyncOptions, TimestampSync

SECOND = 1_000_000


class Rig:
    """Both clocks are known on the host's: the event camera's is 5 s behind it, the RGB camera's 2 s."""

    def __init__(self) -> None:
        self.listeners: list[Any] = []
        event_map, rgb_map = ClockMap(), ClockMap()
        for t_us in range(0, 2 * SECOND, 10_000):
            event_map.add(t_us, t_us + 5 * SECOND)
            rgb_map.add(t_us, t_us + 2 * SECOND)
        ingest = SimpleNamespace(clock_map=event_map, listen=self.listeners.append)
        self.events: Any = SimpleNamespace(name="tcp://camera:7777", ingest=ingest)
        self.rgb: Any = SimpleNamespace(name="/dev/video0", clock_map=rgb_map, is_host_clock=False)

    def choose(self, options: SyncOptions, delay_us: int = 0) -> Sync:
        return choose_live_sync(
            options, self.rgb, self.events, delay_us, FakeClock(), threading.Event(), print
        )


def time_of(sync: Sync, t_us: int) -> int:
    placed = sync.place(RGBFrame(np.zeros((1, 1, 3), np.uint8), t_us, 0))
    assert placed is not None
    return placed.t_us


def test_host_brings_one_clock_to_the_other_by_way_of_the_hosts() -> None:
    sync = Rig().choose(SyncOptions("host"))
    assert isinstance(sync, HostSync)
    assert time_of(sync, 4 * SECOND) == 1 * SECOND


@pytest.mark.parametrize(("mode", "wanted_us"), [("offset=-180000", 820_000), ("offset=700", 1_000_700)])
def test_offset_is_the_same_and_so_much_more(mode: str, wanted_us: int) -> None:
    sync = Rig().choose(SyncOptions(mode))
    assert time_of(sync, 4 * SECOND) == wanted_us
    assert sync.line == f"by the host's clock, {wanted_us - SECOND:+d} us"


def test_a_known_delay_of_the_rgb_camera_is_taken_off() -> None:
    assert time_of(Rig().choose(SyncOptions("host"), delay_us=4000), 4 * SECOND) == 996_000
    assert time_of(Rig().choose(SyncOptions("offset=1000"), delay_us=4000), 4 * SECOND) == 997_000


def test_timestamps_are_taken_as_they_stand() -> None:
    sync = Rig().choose(SyncOptions("timestamps"))
    assert isinstance(sync, TimestampSync)
    assert time_of(sync, 123) == 123


@pytest.mark.parametrize(("mode", "is_required"), [("auto", False), ("trigger", True)])
def test_triggers_are_listened_to_on_the_input_and_edge_that_were_chosen(
    mode: str, is_required: bool
) -> None:
    rig = Rig()
    sync = rig.choose(SyncOptions(mode, trigger_id=3, trigger_edge="rising"))
    assert isinstance(sync, OnlineTriggerSync)
    (track,) = rig.listeners
    track.add_edges(rising(*range(0, 10_000, 1000), trigger_id=2), 10_000)
    assert track.counts.seen == 0
    track.add_edges(rising(*range(0, 10_000, 1000), trigger_id=3), 10_000)
    assert (track.counts.seen, track.spacing_us) == (10, 1000)
    frame = RGBFrame(np.zeros((1, 1, 3), np.uint8), 4 * SECOND, 0)
    assert (sync.place(frame) is None) == is_required  # no edges near it yet


def test_a_way_that_there_is_not_is_refused() -> None:
    with pytest.raises(InputError, match="expected --sync auto, timestamps, trigger, host or offset=US"):
        Rig().choose(SyncOptions("magic"))


def test_auto_takes_the_times_as_they_are_where_one_camera_gives_events_and_frames() -> None:
    rig = Rig()
    rig.rgb.name = rig.events.name = "neuromorphic://00051234"
    sync = rig.choose(SyncOptions("auto"))
    assert isinstance(sync, TimestampSync)
    assert time_of(sync, 4 * SECOND) == 4 * SECOND
    assert isinstance(rig.choose(SyncOptions("trigger")), OnlineTriggerSync)
