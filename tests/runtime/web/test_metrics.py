"""Counters and histograms in the form that Prometheus reads, read back by its own parser."""

from __future__ import annotations

from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs the extra web")
from prometheus_client.core import HistogramMetricFamily
from velora_runtime.report import RunReport
from velora_runtime.sinks.base import Result
from velora_runtime.web.metrics import Buckets, RunMetrics, gauge

from tests.tools_prometheus import parse
from velora_edge.datatypes import FramePair, Prediction


def seen(label: str | None, skew_us: int | None = None, **latency_ms: float) -> Result:
    pair = FramePair(0, 1000, None, None, skew_us)
    said = None if label is None else Prediction(0, 1000, label, 0.5, ((label, 0.5),), 3, skew_us, latency_ms)
    return Result(pair, said)


def test_a_value_on_a_bound_counts_below_it() -> None:
    buckets, family = Buckets((1.0, 2.0)), HistogramMetricFamily("x", "X.", labels=["a"])
    for value in (0.5, 1.0, 1.5, 2.0, 9.0):
        buckets.add(value)
    buckets.add_to(family, ["b"])
    assert [(sample.name, sample.labels, sample.value) for sample in family.samples] == [
        ("x_bucket", {"a": "b", "le": "1.0"}, 2),
        ("x_bucket", {"a": "b", "le": "2.0"}, 4),
        ("x_bucket", {"a": "b", "le": "+Inf"}, 5),
        ("x_count", {"a": "b"}, 5),
        ("x_sum", {"a": "b"}, 14.0),
    ]


def test_labels_are_escaped() -> None:
    text = RunMetrics(()).expose(RunReport(), [gauge("x", "X.", ({"a": 'say "hi"\\\n'}, 1))])
    assert 'x{a="say \\"hi\\"\\\\\\n"} 1.0\n' in text


def test_prometheus_reads_what_is_told() -> None:
    metrics, report = RunMetrics(("pack", "total")), RunReport(sink_drops={"mqtt": 2})
    metrics.observe(seen(None))
    metrics.observe(seen("wave", -300, pack=0.4, total=3.0))
    metrics.observe(seen('a "b"\\c', 200, pack=0.6, total=700.0))
    report.frames.read, report.frames.late, report.pairs.packed, report.predictions = 7, 1, 3, 2
    state = gauge("velora_camera_state", "State.", ({"camera": "rgb"}, 1), ({"camera": "event"}, 0))
    found = parse(metrics.expose(report, [state]))
    wanted: dict[tuple[Any, ...], float] = {
        ("velora_frames_read_total",): 7,
        ("velora_pairs_total",): 3,
        ("velora_predictions_total",): 2,
        ("velora_dropped_total", "cause", "late", "kind", "frame"): 1,
        ("velora_dropped_total", "cause", "sink_mqtt", "kind", "prediction"): 2,
        ("velora_predictions_by_label_total", "label", "wave"): 1,
        ("velora_predictions_by_label_total", "label", 'a "b"\\c'): 1,
        ("velora_stage_latency_seconds_count", "stage", "pack"): 2,
        ("velora_stage_latency_seconds_bucket", "le", "0.005", "stage", "total"): 1,
        ("velora_stage_latency_seconds_bucket", "le", "+Inf", "stage", "total"): 2,
        ("velora_skew_seconds_bucket", "le", "0.00025"): 1,
        ("velora_skew_seconds_count",): 2,
        ("velora_camera_state", "camera", "rgb"): 1,
        ("velora_camera_state", "camera", "event"): 0,
    }
    assert {key: found.get(key) for key in wanted} == wanted
    assert found["velora_stage_latency_seconds_sum", "stage", "total"] == pytest.approx(0.703)
    assert found["velora_skew_seconds_sum",] == pytest.approx(0.0005)
    assert found["process_resident_memory_bytes",] > 1e6
