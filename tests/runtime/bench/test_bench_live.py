"""Live runs on generated cameras, and what an outside observer says of them."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from velora_runtime.bench.benchmark import SWEPT_EVENTS, SWEPT_FPS, Benchmark, BenchOptions
from velora_runtime.bench.cameras import BLOCK_US, Lateness, encode, make_cycle, read_number
from velora_runtime.bench.live import (
    Cameras,
    LiveSettings,
    count_misses,
    find_picture,
    lost,
    measure_live,
    run_once,
    summarise,
)
from velora_runtime.bench.meters import Load

from tests.runtime.bench.measured_by_hand import make_measured
from velora_edge.bundle import find_model
from velora_edge.errors import InputError, VeloraError
from velora_edge.events.registry import open_events
from velora_edge.events.writers.raw import EVT3Writer

if TYPE_CHECKING:
    from collections.abc import Iterator

ASSETS = find_model("demo").parent


@pytest.mark.parametrize("rate_hz", [50_000.0, 20e6])
def test_a_cycle_has_the_rate_asked_for_in_whole_blocks(rate_hz: float) -> None:
    cycle = make_cycle(str(ASSETS / "demo.raw"), rate_hz)
    assert cycle.rate_hz == pytest.approx(rate_hz, rel=0.001)


def test_time_goes_on_from_one_repetition_of_a_cycle_to_the_next(tmp_path: Path) -> None:
    cycle = make_cycle(str(ASSETS / "demo.raw"), 20e6)
    n = len(cycle.blocks)
    path = tmp_path / "twice.raw"
    path.write_bytes(cycle.header + b"".join(cycle.block(k) for k in range(2 * n)))
    whole = open_events(path).read()
    assert len(whole) == 2 * cycle.events
    assert (np.diff(whole.t_us) >= 0).all()
    assert int(whole.t_us[-1]) // BLOCK_US == 2 * n - 1


def test_blocks_without_events_still_tell_the_time(tmp_path: Path) -> None:
    cycle = make_cycle(str(ASSETS / "demo.raw"), 300.0)
    path = tmp_path / "slow.raw"
    path.write_bytes(cycle.header + b"".join(cycle.block(k) for k in range(len(cycle.blocks))))
    whole = open_events(path).read()
    assert len(whole) == cycle.events
    assert int(whole.t_us[-1]) // BLOCK_US == len(cycle.blocks) - 1


def test_a_recording_without_events_is_refused(tmp_path: Path) -> None:
    with EVT3Writer(tmp_path / "empty.raw", 8, 8):
        pass
    with pytest.raises(InputError, match="holds 0 events"):
        make_cycle(str(tmp_path / "empty.raw"), 1e6)


@pytest.mark.parametrize("number", [0, 1, 170, 255])
def test_a_pictures_number_is_read_after_compression(number: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (120, 160, 3), np.uint8)
    data = np.frombuffer(encode(noise, number), np.uint8)
    assert read_number(cv2.imdecode(data, cv2.IMREAD_COLOR)) == number


def test_the_newest_picture_of_a_number_is_meant() -> None:
    exposures = np.arange(600) * 10
    assert find_picture(exposures, 3, 2_605) == 259
    assert find_picture(exposures, 3, 2_585) == 3
    assert find_picture(exposures, 9, 50) is None


def test_pictures_that_are_late_or_never_decided_are_missed() -> None:
    measured = make_measured(first_ns=0, last_ns=400_000_000)
    settings = LiveSettings(deadline_ms=100.0)
    exposures = np.array([0, 100, 200, 300, 390]) * 1_000_000
    count_misses(measured, exposures, {0: 50.0, 1: 150.0, 3: 99.0}, settings)
    assert (measured.due, measured.missed) == (4, 2)  # 1 was late, 2 never came; 390 is not due yet


def test_a_camera_that_oversleeps_is_late_by_itself() -> None:
    lateness = Lateness()
    lateness.sent(100_000_000, 130_000_000, 131_000_000)
    assert lateness.bins == [[131_000_000, 30.0, 1.0]]


def test_a_client_that_is_always_a_little_too_slow_holds_up_more_and_more() -> None:
    lateness, now_ns = Lateness(), 0
    for number in range(1, 51):  # due every 4 ms; each is taken in 5
        due_ns = number * 4_000_000
        begun_ns = max(due_ns, now_ns)
        now_ns = begun_ns + 5_000_000
        lateness.sent(due_ns, begun_ns, now_ns)
    assert lateness.bins[-1][1:] == [0.0, 54.0]


def test_what_was_lost_is_told_by_kind_and_cause_and_each_once() -> None:
    run = make_measured(overrun=3, rgb_dropped=20, pairs_dropped=10, events_dropped=4)
    assert lost(run) == {
        "pictures: camera overrun": 3,
        "pictures: before packing": 7,
        "pairs: before inference": 10,
        "events: overrun": 4,
    }


def test_stages_are_told_by_decision_on_the_host_and_within_the_engine() -> None:
    calls = {"rgb": [120, 240_000_000, 120_000_000], "head": [120, 480_000_000, 360_000_000]}
    run = make_measured(threads={"camera tcp://a:1": 0.6, "pack": 0.4, "inference": 1.2}, calls=calls)
    stages = [
        (stage.name, stage.side, stage.wall_ms, stage.cpu_ms, stage.busy)
        for stage in summarise([run], LiveSettings()).stages
    ]
    assert stages == [
        ("events: receive and scan", "host", None, 5.0, 0.15),
        ("pack", "host", 0.2, 3.333, 0.1),
        ("rgb tower", "engine", 2.0, 1.0, 0.03),
        ("head", "engine", 4.0, 3.0, 0.09),
        ("beside the engine", "host", None, 6.0, 0.18),
    ]


def test_a_sweep_has_a_row_for_each_rate_and_is_not_trusted_beside_other_programs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = make_measured()
    run.load = Load({"session": 0.5}, others=1.9, taken=0.0)
    monkeypatch.setattr("velora_runtime.bench.benchmark.measure_live", lambda model, settings: [run])
    options = BenchOptions(what=frozenset({"sweep"}), search_s=0.1)
    result = Benchmark(options, lambda line: None).run()
    assert {name: [row["at"] for row in rows] for name, rows in result.sweeps.items()} == {
        "event_rate_hz": list(SWEPT_EVENTS),
        "fps": list(SWEPT_FPS),
    }
    assert result.sweeps["fps"][0]["p99_ms"] == 10.0
    assert "sweep: other programs used 1.90 cores" in [reason.text for reason in result.verdict.reasons]


def test_cameras_that_cannot_start_say_why() -> None:
    settings = LiveSettings(events="no-such-file.raw")
    with pytest.raises(VeloraError, match=r"did not start: .*no-such-file\.raw"), Cameras(settings):
        pass


@contextmanager
def watched(cameras: Cameras, decisions: Path, result: Path) -> Iterator[str]:
    """An observer of the run; gives where the events are to be had through it."""
    port = cameras.events.rpartition(":")[2]
    command = [
        sys.executable,
        str(Path(__file__).with_name("observer.py")),
        port,
        str(decisions),
        str(result),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        yield f"tcp://127.0.0.1:{int(process.stdout.readline())}"
        process.communicate("")


class Through(Cameras):
    """Cameras whose events come by way of somebody else."""

    address = ""

    @property
    def events(self) -> str:
        return self.address or super().events


@pytest.mark.slow
def test_latency_agrees_with_that_of_an_outside_observer(tmp_path: Path) -> None:
    decisions, result = tmp_path / "decisions.jsonl", tmp_path / "observed.json"
    settings = LiveSettings(event_rate_hz=1e6, seconds=4.0, warm_up_s=1.5, runs=1, backend="onnxruntime")
    with Through(settings) as cameras, watched(cameras, decisions, result) as address:
        cameras.address = address
        run = run_once("demo", settings, cameras, str(decisions))
    seen = json.loads(result.read_text())
    ours = {row[1]: (row[0] - run.state["began_ns"] - row[1] * 1000) / 1e6 for row in run.said["decisions"]}
    theirs = {t_us: (now_ns - seen["zero_ns"] - t_us * 1000) / 1e6 for now_ns, t_us in seen["rows"]}
    assert set(ours) == set(theirs)
    apart_ms = np.array([theirs[t_us] - ours[t_us] for t_us in ours])
    print(
        f"ours p50 {np.median(list(ours.values())):.2f} ms, the observer's {np.median(apart_ms):+.2f} ms more"
    )
    tenth_ms = float(np.median(list(ours.values()))) / 10  # of a busy machine, whose observer is late too
    assert abs(float(np.median(apart_ms))) < max(1.5, tenth_ms)
    assert float(np.quantile(np.abs(apart_ms), 0.9)) < max(5.0, 5 * tenth_ms)


@pytest.mark.slow
@pytest.mark.parametrize(("rate", "has_rgb"), [(1e6, False), (0.0, True)])
def test_one_camera_alone_is_measured_by_its_own_times(rate: float, has_rgb: bool) -> None:
    settings = LiveSettings(
        event_rate_hz=rate, has_rgb=has_rgb, seconds=2.0, warm_up_s=1.0, runs=1, backend="onnxruntime"
    )
    live = summarise(measure_live("demo", settings), settings)
    run: Any = live.runs[0]
    assert (live.exposure_ms is not None) is has_rgb
    assert (live.last_event_ms is not None) is not has_rgb
    assert run.due >= 20
    assert run.decisions == pytest.approx(run.seconds * 30, abs=5)
