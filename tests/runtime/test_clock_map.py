"""A device's clock on the host's: offset and drift from arrivals that are late by anything."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.clocks import ClockMap

OFFSET_US = 5_000_000


def errors_us(
    seconds: float, *, ppm: float = 100, jitter: str = "uniform", rate_hz: float = 30, seed: int = 0
) -> tuple[ClockMap, np.ndarray, np.ndarray]:
    """The map after a stream, and at each of its times the error of the estimate: (map, seconds, error)."""
    rng = np.random.default_rng(seed)
    clock_map, times, errors = ClockMap(), [], []
    for k in range(int(seconds * rate_hz)):
        device_us = int(k * 1e6 / rate_hz)
        true_us = OFFSET_US + device_us * (1 + ppm * 1e-6)
        late_us = {
            "none": lambda: 0.0,
            "uniform": lambda: rng.uniform(0, 20_000),
            "exponential": lambda: rng.exponential(10_000) + (200_000 if rng.random() < 0.01 else 0),
            "half-normal": lambda: abs(rng.normal(0, 20_000)),
        }[jitter]()
        clock_map.add(device_us, round(true_us + late_us))
        times.append(device_us / 1e6)
        errors.append(clock_map.to_host_us(device_us) - true_us)
    return clock_map, np.array(times), np.array(errors)


def test_without_jitter_the_clocks_are_told_exactly() -> None:
    clock_map, times, errors = errors_us(60, jitter="none")
    assert np.abs(errors[times > 20]).max() <= 5
    assert abs(clock_map.rate_ppm - 100) < 1
    assert clock_map.to_device_us(clock_map.to_host_us(12_345_678)) == 12_345_678


@pytest.mark.parametrize("jitter", ["uniform", "exponential", "half-normal"])
@pytest.mark.parametrize("ppm", [100, -100])
def test_it_settles_within_2_s_to_under_2_ms_at_100_ppm_with_20_ms_jitter(jitter: str, ppm: float) -> None:
    worst = [
        np.abs(errors[times >= 2]).max()
        for _, times, errors in (errors_us(40, ppm=ppm, jitter=jitter, seed=seed) for seed in range(5))
    ]
    assert max(worst) < 2000
    assert np.median(worst) < 1000


def test_the_drift_is_found_through_the_jitter() -> None:
    rates = [errors_us(60, ppm=-80, seed=seed)[0].rate_ppm for seed in range(5)]
    assert all(abs(rate + 80) < 40 for rate in rates)


def test_an_earlier_arrival_counts_at_once() -> None:
    clock_map = ClockMap()
    clock_map.add(1000, 51_000)
    assert clock_map.to_host_us(2000) == 52_000
    clock_map.add(2000, 42_000)
    assert clock_map.to_host_us(3000) == 43_000
    assert clock_map.to_device_us(43_000) == 3000


def test_a_way_that_has_become_longer_is_followed_after_some_seconds() -> None:
    clock_map = ClockMap()
    for k in range(200):
        clock_map.add(100_000 * k, 100_000 * k + (300_000 if k >= 100 else 0))
    assert clock_map.to_host_us(20_000_000) == 20_300_000


def test_lateness_tells_how_long_data_may_still_be_on_its_way() -> None:
    clock_map = ClockMap()
    for k in range(10):
        clock_map.add(10_000 * (k + 1), 10_000 * (k + 1), since_us=10_000 * k)
    assert clock_map.lateness_us == 10_000
    clock_map.add(110_000, 117_000, since_us=100_000)
    assert clock_map.lateness_us == 17_000


def test_it_is_settled_after_a_second_and_not_yet_after_a_new_beginning() -> None:
    clock_map = ClockMap()
    assert (clock_map.is_known, clock_map.is_settled) == (False, False)
    clock_map.add(0, 0)
    clock_map.add(1_000_000, 1_000_000)
    assert (clock_map.is_known, clock_map.is_settled) == (True, True)
    clock_map.restart()
    assert (clock_map.is_known, clock_map.is_settled) == (True, False)
    assert clock_map.to_host_us(7) == 7
    with pytest.raises(ValueError, match="before its clock is asked for"):
        ClockMap().to_host_us(0)
