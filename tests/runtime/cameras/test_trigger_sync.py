"""Live frames come onto the event clock: by the host's clock, and to their exposures' edges."""

from __future__ import annotations

import re
import threading
from collections import deque
from dataclasses import dataclass, field

import numpy as np
import pytest
from velora_runtime.cameras.live_sync import HostSync, OnlineTriggerSync
from velora_runtime.clocks import ClockMap
from velora_runtime.pacing import FramePeriod

from tests.fakes import FakeClock
from tests.fakes_cameras import rising
from velora_edge.datatypes import RGBFrame, TriggerBatch
from velora_edge.preprocessing.triggers import EdgeTrack, Tick

PERIOD_US = 33_333
IMAGE = np.zeros((1, 1, 3), np.uint8)


def track_of(*edges_us: int, reached_us: int | None = None) -> EdgeTrack:
    track = EdgeTrack(None, 1)
    for t_us in edges_us:
        track.add_edges(rising(t_us), t_us)
    if reached_us is not None:
        track.add_edges(TriggerBatch.empty(), reached_us)
    return track


BEAT = [1000 * k for k in range(12)]


def ticks(track: EdgeTrack) -> list[tuple[int, bool]]:
    return [(tick.t_us, tick.is_seen) for tick in track._ticks]


def test_even_edges_are_ticks() -> None:
    track = track_of(*BEAT)
    assert ticks(track) == [(t, True) for t in BEAT]
    assert track.nearest(5400) == Tick(5000, is_seen=True)
    assert track.nearest(11_600) is None
    assert (track.counts.seen, track.counts.missed, track.counts.doubled) == (12, 0, 0)


def test_missed_edges_are_filled_in_between_those_around_them() -> None:
    track = track_of(*BEAT, 14_006)
    assert ticks(track)[-3:] == [(12_002, False), (13_004, False), (14_006, True)]
    assert track.counts.missed == 2


@pytest.mark.parametrize("extra_us", [11_001, 11_030, 11_400, 11_600])
def test_doubled_edges_are_left_out(extra_us: int) -> None:
    track = track_of(*BEAT, extra_us, 12_000, 13_000)
    assert ticks(track)[-3:] == [(11_000, True), (12_000, True), (13_000, True)]
    assert track.counts.doubled == 1


def test_an_edge_that_does_not_come_has_its_tick_once_the_stream_has_passed_it() -> None:
    track = track_of(*BEAT, reached_us=12_400)
    assert len(track._ticks) == 12
    track.add_edges(TriggerBatch.empty(), 12_600)
    assert ticks(track)[-1] == (12_000, False)
    track.add_edges(rising(12_010), 12_700)  # it was only late
    assert ticks(track)[-1] == (12_010, True)
    assert track.counts.missed == 0


def test_a_doubled_edge_at_the_start_does_not_start_the_beat() -> None:
    track = track_of(0, 400, *BEAT[1:])
    assert {t % 1000 for t, _ in ticks(track)} == {0}


def test_the_beat_is_lost_where_edges_stop_and_found_anew() -> None:
    track = track_of(*BEAT, reached_us=60_000)
    assert track.spacing_us == 0
    for t in range(100_000, 120_000, 2000):
        track.add_edges(rising(t), t)
    assert (track.spacing_us, track.counts.beats) == (2000, 2)


def test_another_rate_is_found() -> None:
    track = track_of(*BEAT, *range(11_500, 40_000, 500))
    assert track.spacing_us == 500


def test_edges_of_other_inputs_and_falling_ones_are_not_ours() -> None:
    track = EdgeTrack(3, 1)
    track.add_edges(rising(*BEAT), 11_000)
    track.add_edges(TriggerBatch(np.array(BEAT), np.full(12, 3, "u1"), np.zeros(12, "u1")), 11_000)
    assert (track.counts.seen, track.spacing_us) == (0, 0)


class WorldClock(FakeClock):
    """Time in which the world goes on while somebody waits."""

    def __init__(self, world: World) -> None:
        super().__init__()
        self._world = world

    def wait_until(self, t_us: int, stop: threading.Event) -> None:
        self.t_us = max(self.t_us, t_us)
        self._world.deliver_events(self.t_us)


@dataclass
class World:
    """A rig of two cameras and a host, seen from outside: it knows what is true.

    Exposures are PERIOD_US apart on the event clock; the RGB clock drifts against it; what comes from either
    camera arrives late by a random time, in order.
    """

    seed: int = 0
    ppm: float = 100
    jitter_us: float = 20_000
    delay_us: float = 12_000
    has_rgb_clock: bool = True
    drop: float = 0.03
    double: float = 0.03
    period_us: int = PERIOD_US
    outage_us: int = 0
    edges: EdgeTrack = field(default_factory=lambda: EdgeTrack(None, 1))
    event_map: ClockMap = field(default_factory=ClockMap)
    clock_map: ClockMap = field(default_factory=ClockMap)
    clock: WorldClock = field(init=False)
    packets: deque[tuple[float, int, list[int]]] = field(default_factory=deque)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.clock = WorldClock(self)

    @property
    def is_host_clock(self) -> bool:
        return not self.has_rgb_clock

    def make_sync(self, *, is_required: bool) -> OnlineTriggerSync:
        host, stop = HostSync(self, self.event_map), threading.Event()
        return OnlineTriggerSync(
            host, self.edges, self.clock, stop, is_required=is_required, note=self.notes.append
        )

    def run(self, sync: HostSync | OnlineTriggerSync, seconds: float) -> list[tuple[float, int | None, int]]:
        """For each frame: when it was taken, s; its window's end; its true exposure, event clock."""
        rng, results = np.random.default_rng(self.seed), []
        frame_period = FramePeriod()
        self.packets = deque(self._packets(rng, seconds))
        for arrived_us, exposed_us, rgb_us, seq in self._frames(rng, seconds):
            self.clock.t_us = max(self.clock.t_us, round(arrived_us))
            self.deliver_events(self.clock.t_us)
            t_us = rgb_us if self.has_rgb_clock else frame_period.place(round(arrived_us))
            self.clock_map.add(t_us, round(arrived_us))
            placed = sync.place(RGBFrame(IMAGE, t_us, seq))
            results.append((exposed_us / 1e6, None if placed is None else placed.t_us, exposed_us))
        return results

    def deliver_events(self, now_us: int) -> None:
        while self.packets and self.packets[0][0] <= now_us:
            arrived_us, reached_us, edges = self.packets.popleft()
            self.event_map.add(reached_us, round(arrived_us))
            self.edges.add_edges(rising(*edges), reached_us)

    def _packets(self, rng: np.random.Generator, seconds: float) -> list:  # type: ignore[type-arg]
        """The event camera gives what it has every 2 ms; the host comes to read it now and then."""
        exposures = np.arange(self.period_us, seconds * 1e6, self.period_us).astype(int)
        edges: list[int] = []
        for t_us in exposures.tolist():
            luck = rng.random()
            if self.outage_us and t_us // self.outage_us % 2:
                continue  # the cable is out
            if luck >= self.drop:
                edges.append(t_us)
            if self.drop <= luck < self.drop + self.double:
                edges.append(t_us + int(rng.uniform(100, self.period_us - 100)))
        edges.sort()
        packets, last, k = [], 0.0, 0
        for reached_us in range(2000, round(seconds * 1e6), 2000):
            if reached_us + 3e9 > last:
                last = reached_us + 3e9 + rng.uniform(0, self.jitter_us)
            mine = []
            while k < len(edges) and edges[k] < reached_us:
                mine.append(edges[k])
                k += 1
            packets.append((last, reached_us, mine))
        return packets

    def _frames(self, rng: np.random.Generator, seconds: float) -> list:  # type: ignore[type-arg]
        frames, last = [], 0.0
        for seq, exposed_us in enumerate(range(self.period_us, round(seconds * 1e6), self.period_us)):
            last = max(last, exposed_us + 3e9 + self.delay_us + rng.uniform(0, self.jitter_us))
            if rng.random() > 0.02:  # some frames are lost on their way
                rgb_us = round(exposed_us * (1 + self.ppm * 1e-6)) + 777_000
                frames.append((last, exposed_us, rgb_us, seq))
        return frames


@pytest.mark.parametrize("ppm", [100, -100])
@pytest.mark.parametrize("seed", range(3))
def test_host_mode_settles_within_2_s_to_under_2_ms_of_skew(ppm: float, seed: int) -> None:
    world = World(seed=seed, ppm=ppm, drop=0, double=0)
    results = world.run(HostSync(world, world.event_map, -round(world.delay_us)), 20)
    errors = [abs(t_us - true_us) for s, t_us, true_us in results if t_us is not None and s > 2]
    assert len(errors) > 500
    assert max(errors) < 2000


@pytest.mark.parametrize("has_rgb_clock", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_with_3_percent_of_edges_dropped_or_doubled_every_frame_gets_its_own_window(
    seed: int, *, has_rgb_clock: bool
) -> None:
    world = World(seed=seed, has_rgb_clock=has_rgb_clock)
    sync = world.make_sync(is_required=True)
    results = world.run(sync, 60)
    settled = [(t_us, true_us) for s, t_us, true_us in results if (2 if has_rgb_clock else 5) < s < 59]
    assert len(settled) > 1500
    errors = [abs(t_us - true_us) for t_us, true_us in settled if t_us is not None]
    assert len(errors) == len(settled)
    assert max(errors) < 0.1 * PERIOD_US
    assert np.mean(np.array(errors) <= 100) > 0.99
    assert sync.counts.on_beat > 20  # frames whose edge was missed
    assert world.edges.counts.doubled > 20
    assert sync.counts.locks == 1


def test_a_fast_camera_with_its_own_clock_keeps_its_windows_too() -> None:
    world = World(period_us=8_333, delay_us=4_000)
    results = world.run(world.make_sync(is_required=True), 20)
    late = [(t_us, true_us) for s, t_us, true_us in results if 3 < s < 19]
    assert len(late) > 1800
    assert all(t_us is not None and abs(t_us - true_us) < 1000 for t_us, true_us in late)


def test_without_triggers_auto_goes_by_the_hosts_clock() -> None:
    world = World(drop=1, double=0)
    sync = world.make_sync(is_required=False)
    results = world.run(sync, 5)
    assert all(t_us is not None for _, t_us, _ in results)
    assert (sync.counts.on_edge, sync.counts.by_host) == (0, len(results))


def test_where_triggers_are_required_a_frame_without_any_has_no_place() -> None:
    world = World(drop=1, double=0)
    results = world.run(world.make_sync(is_required=True), 3)
    assert {t_us for _, t_us, _ in results} == {None}


def test_a_loose_trigger_cable_is_told_once_a_minute_and_counted_always() -> None:
    world = World(drop=0, double=0, outage_us=5_000_000)
    sync = world.make_sync(is_required=False)
    world.run(sync, 50)
    assert sync.counts.locks >= 4
    found, lost = world.notes
    assert re.fullmatch(r"frames follow the triggers, \d+\.\d ms after them", found)
    assert lost == "the triggers have stopped, or no longer fit the frames"


def test_the_skew_is_what_the_clocks_say_beyond_the_edge() -> None:
    world = World(jitter_us=0, drop=0, double=0, ppm=0)
    sync = world.make_sync(is_required=False)
    world.run(sync, 10)
    placed = sync.place(RGBFrame(IMAGE, 777_000 + 280 * PERIOD_US + 700, 280))
    assert placed is not None
    assert placed.t_us == 280 * PERIOD_US
    assert abs(placed.skew_us - 700) < 50
    assert world.notes == ["frames follow the triggers, 12.0 ms after them"]
