"""Prometheus metrics of a run: text exposition format 0.0.4."""

from __future__ import annotations

import os
from bisect import bisect_left
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING

from prometheus_client import generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from prometheus_client.metrics_core import Metric

    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Result

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Buckets:
    """Histogram by upper bounds. Written by one thread, read by any."""

    def __init__(self, bounds: Sequence[float] = BUCKETS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def add_to(self, family: HistogramMetricFamily, labels: Sequence[str] = ()) -> None:
        """Put the counts into a histogram, under the values of its labels."""
        bounds = (*map(repr, self.bounds), "+Inf")
        family.add_metric(labels, list(zip(bounds, accumulate(tuple(self.counts)), strict=True)), self.total)


class RunMetrics:
    """Counts for `/metrics` that the report does not keep.

    `observe` is called by the inference thread; all else may be called from any.

    Args:
        stages: names of the latencies.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.latency = {stage: Buckets() for stage in stages}
        self.skew = Buckets()
        self.labels: dict[str, int] = {}

    def observe(self, result: Result) -> None:
        """Count a pair that the model has seen."""
        if result.pair.skew_us is not None:
            self.skew.add(abs(result.pair.skew_us) / 1e6)
        said = result.prediction
        if said is None:
            return
        for stage, value_ms in said.latency_ms.items():
            if stage in self.latency:
                self.latency[stage].add(value_ms / 1000)
        self.labels[said.label] = self.labels.get(said.label, 0) + 1

    def expose(self, report: RunReport, gauges: Iterable[Metric] = ()) -> str:
        """All of it as text.

        Args:
            report: of the run, while it is running.
            gauges: what else there is to tell, in order.
        """
        return generate_latest(_Collected([*_counters(report), *self._own(), *gauges, *_process()])).decode()

    def _own(self) -> Iterator[Metric]:
        labels = CounterMetricFamily("velora_predictions_by_label", "By best label.", labels=["label"])
        for label, n in sorted(dict(self.labels).items()):
            labels.add_metric([label], n)
        yield labels
        latency = HistogramMetricFamily(
            "velora_stage_latency_seconds", "Time spent on a pair, by stage.", labels=["stage"]
        )
        for stage, buckets in self.latency.items():
            buckets.add_to(latency, [stage])
        yield latency
        skew = HistogramMetricFamily("velora_skew_seconds", "RGB frame's time less the pair's, without sign.")
        self.skew.add_to(skew)
        yield skew


class _Collected:
    """Metrics that were collected already, where prometheus_client asks a registry for them."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        return self._metrics


def gauge(name: str, help_text: str, *values: tuple[Mapping[str, str], float]) -> Metric:
    """A value that goes up and down, once or by labels; all values have the same labels.

    Args:
        name: of the metric.
        help_text: one sentence.
        values: labels and value, each.
    """
    family = GaugeMetricFamily(name, help_text, labels=tuple(values[0][0]) if values else ())
    for labels, value in values:
        family.add_metric(tuple(labels.values()), value)
    return family


def _counters(report: RunReport) -> Iterator[Metric]:
    frames, pairs = report.frames, report.pairs
    yield CounterMetricFamily("velora_frames_read", "RGB frames that came.", value=frames.read)
    yield CounterMetricFamily("velora_pairs", "Pairs that were made.", value=pairs.packed)
    yield CounterMetricFamily("velora_predictions", "Predictions that were made.", value=report.predictions)
    yield CounterMetricFamily("velora_events", "Events in the windows of pairs.", value=pairs.events)
    if report.actions is not None:
        actions = CounterMetricFamily("velora_actions", "Actions that started, by label.", labels=["label"])
        for label, value in sorted(dict(report.actions).items()):
            actions.add_metric([label], value)
        yield actions
    yield _drops(report)
    absent = CounterMetricFamily("velora_absent_pairs", "Pairs without this camera.", labels=["camera"])
    absent.add_metric(["rgb"], pairs.without_rgb)
    absent.add_metric(["event"], pairs.without_events)
    yield absent


def _drops(report: RunReport) -> Metric:
    frames, pairs = report.frames, report.pairs
    drops = CounterMetricFamily(
        "velora_dropped", "What was lost, by kind and cause.", labels=["kind", "cause"]
    )
    for kind, cause, value in (
        ("frame", "late", frames.late),
        ("frame", "unplaced", frames.unplaced),
        ("frame", "overrun", frames.dropped),
        ("pair", "overrun", pairs.dropped),
        ("events", "overrun", pairs.dropped_events),
        ("events", "between_windows", pairs.skipped_events),
        *(("prediction", f"sink_{sink}", value) for sink, value in dict(report.sink_drops).items()),
    ):
        drops.add_metric([kind, cause], value)
    return drops


def _process() -> Iterator[Metric]:
    """Memory as the usual clients name it; nothing where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return
    size = pages * os.sysconf("SC_PAGE_SIZE")
    yield gauge("process_resident_memory_bytes", "Resident memory size in bytes.", ({}, size))
