"""The soak: what it calls a failure, by hand; and a short one through the whole live pipeline."""

from __future__ import annotations

import importlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from velora_runtime.bench import cameras

from tests.recordings import write_events
from velora_edge import open_events

if TYPE_CHECKING:
    from types import ModuleType

FOLDER = Path(__file__).parents[2] / "benchmarks"
SUMMARY: dict[str, Any] = {
    "dropped": {"rgb": 0, "events": 0, "pairs": 0, "sinks": {"jsonl": 0}},
    "frames": {"late": 0},
    "cameras": {"event": {"events": {"dropped": {"overrun": 0, "rate_cap": 0}}}},
}


@pytest.fixture
def soak(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(FOLDER))
    return importlib.import_module("soak")


def samples(soak: ModuleType, *, mb_min: float = 0.0, threads: tuple[int, int] = (20, 20)) -> list[Any]:
    """Two minutes, a sample a second; memory grows steadily, and has a peak that is no growth."""
    found = [
        soak.Sample(float(s), 300 + s / 60 * mb_min + 200 * (s == 118), 100.0, threads[s >= 60])
        for s in range(120)
    ]
    return [replace(found[0], rss_mb=10.0), *found[1:]]


def test_growth_is_per_minute_and_passes_over_peaks(soak: ModuleType) -> None:
    assert soak.growth(samples(soak, mb_min=3.0)[20:]) == pytest.approx(3.0)
    assert soak.growth(samples(soak)[20:]) == 0


def test_a_run_that_stays_as_it_is_has_no_failures(soak: ModuleType) -> None:
    verdict = soak.judge(samples(soak), 20, SUMMARY, 1.99, 0.9)
    assert (verdict.failures(), verdict.rss_mb, verdict.threads_at_end) == ([], 300, 20)


def test_each_failure_is_told(soak: ModuleType) -> None:
    summary = {
        "dropped": {"rgb": 1, "events": 2000, "pairs": 3, "sinks": {"jsonl": 4}},
        "frames": {"late": 1},
        "cameras": {"event": {"events": {"dropped": {"overrun": 500, "rate_cap": 0}}}},
        "recordings": [{"dropped": {"frames": 6}}],
    }
    verdict = soak.judge(samples(soak, mb_min=1.5, threads=(20, 22)), 20, summary, 2.0, 1.0)
    assert verdict.failures() == [
        "memory grows by 1.50 MB a minute",
        "2 threads are left over",
        "2 dropped: frames",
        "3 dropped: pairs",
        "2,500 dropped: events",
        "4 dropped: outputs",
        "6 dropped: recorded",
        "a pair takes 2.00 ms outside the engine",
        "the cameras were held up by 1.0 s",
    ]


def test_minutes_in_which_the_host_took_cores_are_told_apart(soak: ModuleType) -> None:
    """Three minutes; in the second the host takes half a core, 7 are dropped, packing is slow."""
    found = []
    for s in range(181):
        inside = min(max(s - 60, 0), 60)
        ms = 30 * (s + 3.0 * inside)
        found.append(soak.Sample(float(s), 300, 100, 20, 0.5 * inside, 7.0 * (s > 90), 30.0 * s, ms))
    assert soak.own_minutes(found, 4) == soak.Minutes(2, 3, 3600, 0, pytest.approx(1.0))
    assert soak.own_minutes(found, 400) == soak.Minutes(3, 3, 5400, 7, pytest.approx(2.0))
    assert soak.own_minutes(found[:5], 4) == soak.Minutes(0, 0, 0, 0, 0)


def test_drops_are_read_from_the_metrics(soak: ModuleType) -> None:
    text = (
        "# TYPE velora_dropped_total counter\n"
        'velora_dropped_total{kind="frame",cause="late"} 1\n'
        'velora_dropped_total{kind="pair",cause="overrun"} 20\n'
        'velora_dropped_total{kind="events",cause="overrun"} 300\n'
    )
    assert soak.dropped_so_far(text) == 21


def test_packing_is_read_from_the_metrics(soak: ModuleType) -> None:
    text = (
        'velora_stage_latency_seconds_sum{stage="pack"} 0.25\n'
        'velora_stage_latency_seconds_count{stage="pack"} 500\n'
        'velora_stage_latency_seconds_sum{stage="total"} 9\n'
    )
    assert soak.pack_ms(text) == (250, 500)
    assert soak.pack_ms("") == (0, 0)


def test_a_repeated_recording_goes_on_in_time_and_loses_nothing(tmp_path: Path) -> None:
    write_events(tmp_path / "e.raw")
    cycle = cameras.make_cycle(str(tmp_path / "e.raw"), 100_000)
    n_blocks = len(cycle.blocks)
    assert (cycle.events, n_blocks) == (3686, 9)  # 9 blocks of 4,096 us; the rest of 4,000 events is left out
    assert cycle.rate_hz == pytest.approx(100_000, rel=1e-3)
    (tmp_path / "long.raw").write_bytes(cycle.header + b"".join(cycle.block(k) for k in range(3 * n_blocks)))
    with open_events(tmp_path / "long.raw") as reader:
        batches = list(reader)
        assert reader.warnings == []
    t_us = np.concatenate([batch.t_us for batch in batches])
    assert (len(t_us), bool((np.diff(t_us) >= 0).all())) == (3 * 3686, True)
    length_us = n_blocks * cameras.BLOCK_US
    assert np.array_equal(t_us[3686:7372] - length_us, t_us[:3686])
    assert t_us[-1] < 3 * length_us


@pytest.mark.slow
def test_half_a_minute_of_a_live_run_leaves_no_thread_and_no_memory(
    soak: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """On a machine that does other things too: what depends on its speed is not judged here."""
    told = tmp_path / "soak.json"
    given = [
        "soak.py",
        "--minutes",
        "0.5",
        "--rate",
        "1",
        "--warm-up",
        "12",
        "--keep",
        "0",
        "--json",
        str(told),
    ]
    monkeypatch.setattr(sys, "argv", given)
    code = soak.main()
    said = json.loads(told.read_text())
    if said["summary"]["wall_s"] > 45 or said["engine"]["clips"] < 200:
        pytest.skip("needs a machine with time for a run in real time")
    assert code == (1 if said["failures"] else 0)
    verdict, summary = said["verdict"], said["summary"]
    assert verdict["threads_at_end"] <= verdict["threads_after_warm_up"]
    steady = [sample["rss_mb"] for sample in said["samples"] if sample["s"] >= 12]
    assert len(steady) >= 10
    # Not the peaks: what waits while the machine does something else is memory, too, and given back.
    half = len(steady) // 2
    assert np.median(steady[half:]) - np.median(steady[:half]) < 20
    assert summary["cameras"]["event"]["events"]["garbage_bytes"] == 0
    assert summary["events"]["in_windows"] > 10_000_000
    assert summary["predictions"] > 300
    assert said["engine"]["outside_ms"] > 0
    assert "| host time a pair |" in capsys.readouterr().out
