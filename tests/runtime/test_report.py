"""Percentiles and the report of a run."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from velora_runtime.report import (
    CameraMeter,
    Delivery,
    Histogram,
    ProvisionalCounts,
    RunReport,
    RunStart,
)

from tests.fakes import FakeClock
from velora_edge.events.filters.filters import RateCap


def test_percentiles_are_right_to_one_and_a_half_percent() -> None:
    values = np.random.default_rng(2).lognormal(8, 1.5, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(float(value))
    for percent in (1, 50, 95, 99, 99.9):
        exact = np.percentile(values, percent, method="inverted_cdf")
        assert histogram.percentile(percent) == pytest.approx(exact, rel=0.015)


def test_one_value_is_every_percentile() -> None:
    histogram = Histogram()
    histogram.add(1234)
    assert histogram.summary() == {"p50": 1234.0, "p95": 1234.0, "p99": 1234.0, "max": 1234.0}


def test_values_beyond_the_ends_are_counted_there() -> None:
    histogram = Histogram()
    for value in (0, 0.2, 1e12):
        histogram.add(value)
    assert (histogram.percentile(50), histogram.percentile(100), histogram.highest) == (0, 1e10, 1e12)


def test_no_values_are_zero() -> None:
    assert Histogram().summary(1000) == {"p50": 0, "p95": 0, "p99": 0, "max": 0}


def make_report() -> RunReport:
    report = RunReport(sink_drops={"video": 2})
    report.frames.read, report.frames.unplaced, report.frames.late, report.frames.dropped = 20, 1, 2, 3
    report.pairs.packed, report.pairs.without_rgb, report.pairs.dropped = 14, 1, 4
    report.pairs.empty, report.engine_retries, report.cameras = 5, 6, {"rgb": {"state": "live"}}
    report.pairs.dropped_rgb, report.pairs.dropped_events = 3, 70
    report.pairs.events, report.pairs.skipped_events = 1000, 30
    report.idle = 3
    report.predictions, report.first_us, report.last_us, report.wall_us = 8, 1_000_000, 3_000_000, 500_000
    report.skew_us.add(40)
    for stage in report.latency_us:
        report.latency_us[stage].add(2000)
    report.warnings.append("odd")
    report.count_filtered = lambda: {"background": 9, RateCap.name: 5}
    return report


def test_report_as_json_has_every_count() -> None:
    stage = {"p50": 2.0, "p95": 2.0, "p99": 2.0, "max": 2.0}
    assert json.loads(json.dumps(make_report().as_dict())) == {
        "v": 1,
        "pairs": 14,
        "predictions": 8,
        "idle": 3,
        "dropped": {"rgb": 6, "events": 75, "pairs": 4, "sinks": {"video": 2}},
        "frames": {"read": 20, "paired": 13, "unplaced": 1, "early": 0, "late": 2, "unused": 1, "overrun": 0},
        "absent": {"rgb": 1, "event": 0},
        "empty_windows": 5,
        "passed_over_windows": 0,
        "engine_retries": 6,
        "cameras": {"rgb": {"state": "live"}},
        "events": {"in_windows": 1000, "skipped": 30, "filtered": {"background": 9, "rate cap": 5}},
        "latency_ms": {"pack": stage, "encode": stage, "head": stage, "total": stage},
        "skew_us": {"p50": 40.0, "p95": 40.0, "p99": 40.0, "max": 40.0},
        "clip_span_s": None,
        "recording_s": 2.0,
        "wall_s": 0.5,
        "realtime_factor": 4.0,
        "stopped": False,
        "warnings": ["odd"],
    }


def test_the_report_counts_decisions_between_pairs_and_those_that_were_left_out() -> None:
    report = make_report()
    report.provisional = counts = ProvisionalCounts(
        True, left_out=Counter(unpacked=1, overtaken=2, unseen=3, late=4)
    )
    counts.add(4000, is_idle=False)
    counts.add(1, is_idle=True)
    stage = {"p50": 4.0, "p95": 4.0, "p99": 4.0, "max": 4.0}
    assert report.as_dict()["provisional"] == {
        "predictions": 2,
        "idle": 1,
        "left_out": 10,
        "latency_ms": {"total": stage},
    }
    assert "provisional: 2 predictions, 10 left out" in report.lines()
    assert "between p50    4.00  p95    4.00  p99    4.00  max    4.00 ms" in report.lines()


def test_report_for_people_is_a_few_lines() -> None:
    assert make_report().lines() == [
        "14 pairs, 8 predictions; 2.00 s of recording in 0.50 s",
        "events 1,000 in windows, 30 skipped, 70 dropped",
        "idle: 3 of the predictions stood, since nothing moved",
        "background: 9 events dropped",
        "rate cap: 5 events dropped",
        "RGB frames 20 read, 6 dropped, 1 without a trigger, 2 not later than the one before",
        "absent: RGB in 1 pairs, events in 0",
        "skew  p50 40  p95 40  max 40 us",
        "pack   p50    2.00  p95    2.00  p99    2.00  max    2.00 ms",
        "encode p50    2.00  p95    2.00  p99    2.00  max    2.00 ms",
        "head   p50    2.00  p95    2.00  p99    2.00  max    2.00 ms",
        "total  p50    2.00  p95    2.00  p99    2.00  max    2.00 ms",
        "sinks too slow: 2 video dropped",
    ]


def delivered(events: int, triggers: int, dropped: int, packets: int) -> Delivery:
    return Delivery(
        {"events": events, "triggers": triggers}, {"events": dropped, "packets": packets}, 2_100, -12.34
    )


def test_lines_about_cameras_come_when_they_are_due_and_tell_what_came_since() -> None:
    clock, notes = FakeClock(), list[str]()
    events = [delivered(1_000, 1, 0, 0)]
    frames = [Delivery({"frames": 10}, {"frames": 2}, 0, 0.0)]
    meter = CameraMeter([lambda: events[-1], lambda: frames[-1]], clock, 2.0, notes.append)
    clock.t_us = 1_999_999
    meter.poll()
    assert notes == []
    clock.t_us = 2_000_000
    events.append(delivered(3_001_000, 61, 500, 3))
    frames.append(Delivery({"frames": 70}, {"frames": 5}, 900, 3.0))
    meter.poll()
    meter.poll()
    line = (
        "perf   events 1,500,000.0/s  triggers 30.0/s  500 events dropped  3 packets dropped  delay 2.1 ms  "
        "drift -12.3 ppm; frames 30.0/s  3 frames dropped  delay 0.9 ms  drift +3.0 ppm"
    )
    assert notes == [line]
    clock.t_us = 4_000_000
    meter.poll()
    assert "events 0.0/s  triggers 0.0/s  0 events dropped" in notes[1]
    assert "events 750,000.0/s" in meter.whole()[0]


def test_without_live_cameras_or_an_interval_there_are_no_lines_meanwhile() -> None:
    clock, notes = FakeClock(), list[str]()
    none = CameraMeter([], clock, 1.0, notes.append)
    quiet = CameraMeter([lambda: delivered(0, 0, 0, 0)], clock, None, notes.append)
    clock.t_us = 10_000_000
    none.poll()
    quiet.poll()
    assert (notes, none.whole(), len(quiet.whole())) == ([], [], 1)


def test_the_report_tells_what_cameras_delivered() -> None:
    report = make_report()
    report.perf = ["perf   frames 30.0/s"]
    assert "perf   frames 30.0/s" in report.lines()


def test_a_duration_counts_from_the_first_pair_of_all_cameras() -> None:
    start = RunStart()
    for t_us, missing in (
        (1_000_000, ("rgb",)),
        (1_500_000, ("rgb",)),
        (2_000_000, ()),
        (3_000_000, ("event",)),
    ):
        start.begin(t_us)
        start.see(t_us, missing)
    assert start.passed_us(3_000_000) == 1_000_000
    assert start.warnings() == ["the first 1.00 s are without pictures"]


def test_until_there_is_one_it_counts_from_the_first_window() -> None:
    start = RunStart()
    assert start.passed_us(7) == 0
    for t_us in (1_000_000, 1_500_000):
        start.begin(t_us)
        start.see(t_us, ("event",))
    assert start.passed_us(1_500_000) == 500_000
    assert start.warnings() == ["no pair of both cameras: events were missing from the start"]


@pytest.mark.parametrize(("first_us", "told"), [(1_900_001, 0), (1_900_000, 1)])
def test_a_camera_that_is_hardly_late_is_not_told(first_us: int, told: int) -> None:
    start = RunStart()
    for t_us, missing in ((first_us, ("rgb",)), (2_000_000, ())):
        start.begin(t_us)
        start.see(t_us, missing)
    assert len(start.warnings()) == told
