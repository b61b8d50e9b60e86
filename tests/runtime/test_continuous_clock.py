"""One clock over reconnections, resets and pours; even times for pictures without any."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.clocks import ClockMap, ContinuousClock
from velora_runtime.ingest.event_ingest import PacketRateCap
from velora_runtime.pacing import BurstPacer, FramePeriod


def test_the_first_connection_keeps_the_cameras_times() -> None:
    timeline = ContinuousClock(ClockMap(), back_us=10)
    assert [timeline.place(t, t + 50) for t in (1000, 2000, 1995, 3000)] == [1000, 2000, 1995, 3000]
    assert (timeline.shift_us, timeline.begun) == (0, 0)


def test_after_a_reconnection_times_go_on_by_the_hosts_clock() -> None:
    timeline = ContinuousClock(ClockMap(), back_us=10)
    timeline.place(7_000_000, 100)
    timeline.place(8_000_000, 1_000_100)
    timeline.begin()
    assert timeline.place(500, 4_000_100) == 11_000_000
    assert timeline.place(1500, 4_001_100) == 11_001_000
    assert timeline.begun == 1


@pytest.mark.parametrize(("device_us", "goes_on"), [(1990, True), (1900, False), (6_000_000, False)])
def test_a_clock_that_was_set_is_noticed(device_us: int, *, goes_on: bool) -> None:
    timeline = ContinuousClock(ClockMap(), back_us=20)
    timeline.place(2000, 2000)
    assert timeline.goes_on(device_us, 3000) is goes_on
    assert timeline.place(device_us, 3000) == (device_us if goes_on else 3000)


def test_without_a_hosts_clock_times_only_must_not_go_back() -> None:
    timeline = ContinuousClock(ClockMap(), back_us=20, leap_us=None)
    assert [timeline.place(t, 5) for t in (2000, 900_000_000, 100, 200)] == [
        2000,
        900_000_000,
        900_000_001,
        900_000_101,
    ]


def test_a_camera_is_not_held_back() -> None:
    pour = BurstPacer()
    assert [pour.due_us(t, t + late) for t, late in ((0, 0), (50_000, 90_000), (100_000, 0), (9**9, 5))] == [
        0,
        140_000,
        100_000,
        9**9 + 5,
    ]


def test_a_file_in_a_pipe_is_held_back_to_its_own_speed() -> None:
    pour, now_us, held = BurstPacer(), 0, []
    for device_us in range(0, 3_000_000, 50_000):
        now_us = pour.due_us(device_us, now_us)
        held.append(now_us)
    assert pour.is_pouring
    assert 2_600_000 < held[-1] < 2_750_000  # 0.25 s came at once, before it was noticed; then 2 % faster


def test_a_camera_that_had_something_in_store_catches_up() -> None:
    pour, now_us = BurstPacer(), 0
    for device_us in range(0, 30_000_000, 10_000):  # its first 0.5 s are there at once
        now_us = max(now_us, device_us - 500_000)
        now_us = pour.due_us(device_us, now_us)
    assert not pour.is_pouring
    assert now_us == device_us - 500_000


def test_what_comes_at_once_after_a_stall_is_not_held_back() -> None:
    pour = BurstPacer()
    for device_us in range(0, 6_000_000, 10_000):
        assert pour.due_us(device_us, device_us) == device_us
    for device_us in range(6_000_000, 6_500_000, 10_000):
        assert pour.due_us(device_us, 6_500_000) == 6_500_000
    assert not pour.is_pouring


@pytest.mark.parametrize(("in_store_us", "within_us"), [(300_000, 300_000), (1_200_000, 1_000_000)])
def test_beside_another_camera_it_does_so_soon(in_store_us: int, within_us: int) -> None:
    pour, now_us, late = BurstPacer(), 0, []
    pour.hurries = True
    for device_us in range(0, 10_000_000, 10_000):  # so much is there at once
        there_us = max(0, device_us - in_store_us)
        now_us = pour.due_us(device_us, max(now_us, there_us))
        late.append((now_us, now_us - there_us))
    assert not pour.is_pouring
    assert max(late_us for at_us, late_us in late if at_us > within_us) == 0


def test_the_cap_lets_so_many_events_a_second_through() -> None:
    cap = PacketRateCap(1_000_000)
    passed = sum(2000 for k in range(1000) if cap.allows(2000, 1000 * k))
    assert 1_000_000 <= passed <= 1_102_000  # a second's worth, and the burst


def test_without_a_cap_all_is_let_through() -> None:
    assert all(PacketRateCap(None).allows(10**9, t) for t in range(5))


def test_a_burst_after_silence_is_limited_too() -> None:
    cap = PacketRateCap(1_000_000)
    cap.allows(0, 0)
    assert sum(10_000 for _ in range(100) if cap.allows(10_000, 60_000_000)) <= 120_000


@pytest.mark.parametrize(("period_us", "jitter_us"), [(33_333, 20_000), (16_667, 10_000)])
def test_pictures_without_times_get_even_ones_although_some_are_lost(period_us: int, jitter_us: int) -> None:
    for seed in range(5):
        rng, frame_period, errors, tick, last = np.random.default_rng(seed), FramePeriod(), [], 0, 0.0
        for _ in range(600):
            tick += 1 if rng.random() > 0.03 else 2
            true_us = 1_000_000 + tick * period_us * 1.0001
            last = max(last + 1, true_us + rng.uniform(0, jitter_us))
            placed = frame_period.place(int(last))
            errors.append((tick * period_us, abs(placed - true_us)))
        late = [error for t_us, error in errors if t_us > 4_000_000]
        assert max(late) < 0.15 * period_us
        assert np.median(late) < 600


@pytest.mark.parametrize("n_at_once", [0, 10, 17, 25, 60])
def test_pictures_that_were_waiting_at_the_start_do_not_set_the_beat(n_at_once: int) -> None:
    for seed in range(4):
        rng, frame_period, last, errors = np.random.default_rng(seed), FramePeriod(), 0.0, []
        for k in range(300):
            true_us = 1_000_000 + k * 33_333.3
            arrived = true_us + rng.exponential(3000)
            if k < n_at_once:
                arrived = 1_000_000 + n_at_once * 33_333 + 800 * k
            last = max(last + 300, arrived)
            errors.append(abs(frame_period.place(int(last)) - true_us))
        assert max(errors[140 + n_at_once :]) < 1500
        assert np.median(errors[140 + n_at_once :]) < 150
