"""What a run has counted so far, as Prometheus reads it: text exposition format 0.0.4.

Format: https://prometheus.io/docs/instrumenting/exposition_formats/
"""

from __future__ import annotations

import os
from bisect import bisect_left
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from velora_runtime.report.run_report import RunReport
    from velora_runtime.sinks.base import Seen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS_S = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)


class Buckets:
    """How many values were at most so large. Written by one thread, read by any."""

    def __init__(self, bounds: Sequence[float] = BUCKETS_S) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str, labels: Mapping[str, str]) -> Iterator[str]:
        """A histogram's lines, without its type."""
        so_far = 0
        counts = tuple(self.counts)
        for bound, count in zip((*map(repr, self.bounds), "+Inf"), counts, strict=True):
            so_far += count
            yield sample(f"{name}_bucket", so_far, {**labels, "le": bound})
        yield sample(f"{name}_sum", self.total, labels)
        yield sample(f"{name}_count", so_far, labels)


class RunMetrics:
    """What `/metrics` needs and the report does not keep.

    `observe` is called by the inference thread; all else may be called from any.

    Args:
        stages: names of the latencies.
    """

    def __init__(self, stages: Sequence[str]) -> None:
        self.latency = {stage: Buckets() for stage in stages}
        self.skew = Buckets()
        self.labels: dict[str, int] = {}

    def observe(self, seen: Seen) -> None:
        """Count a pair that the model has seen."""
        if seen.pair.skew_us is not None:
            self.skew.add(abs(seen.pair.skew_us) / 1e6)
        said = seen.prediction
        if said is None:
            return
        for stage, value_ms in said.latency_ms.items():
            if stage in self.latency:
                self.latency[stage].add(value_ms / 1000)
        self.labels[said.label] = self.labels.get(said.label, 0) + 1

    def expose(self, report: RunReport, gauges: Sequence[Gauge] = ()) -> str:
        """All of it as text.

        Args:
            report: of the run, while it is running.
            gauges: what else there is to tell, in order.
        """
        lines = [
            *_counters(report),
            *_family("velora_predictions_by_label_total", "counter", "By best label."),
        ]
        for label, n in sorted(dict(self.labels).items()):
            lines.append(sample("velora_predictions_by_label_total", n, {"label": label}))
        lines += _family("velora_stage_latency_seconds", "histogram", "Time spent on a pair, by stage.")
        for stage, buckets in self.latency.items():
            lines += buckets.lines("velora_stage_latency_seconds", {"stage": stage})
        lines += _family(
            "velora_skew_seconds", "histogram", "RGB frame's time less the pair's, without sign."
        )
        lines += self.skew.lines("velora_skew_seconds", {})
        for gauge in (*gauges, *_process()):
            lines += gauge.lines()
        return "\n".join(lines) + "\n"


class Gauge:
    """A value that goes up and down, once or by label.

    Args:
        name: of the metric.
        help_text: one sentence.
        values: labels and value, each.
    """

    def __init__(self, name: str, help_text: str, *values: tuple[Mapping[str, str], float]) -> None:
        self._name, self._help, self._values = name, help_text, values

    def lines(self) -> Iterator[str]:
        """Its lines, the type first."""
        yield from _family(self._name, "gauge", self._help)
        for labels, value in self._values:
            yield sample(self._name, value, labels)


def sample(name: str, value: float, labels: Mapping[str, str] | None = None) -> str:
    """One line: name, labels, value."""
    inner = ",".join(f'{key}="{_escape(text)}"' for key, text in (labels or {}).items())
    return f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}"


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _family(name: str, kind: str, help_text: str) -> list[str]:
    return [f"# HELP {name} {help_text}", f"# TYPE {name} {kind}"]


def _counters(report: RunReport) -> Iterator[str]:
    frames, pairs = report.frames, report.pairs
    plain = (
        ("velora_frames_read_total", "RGB frames that came.", frames.read),
        ("velora_pairs_total", "Pairs that were made.", pairs.packed),
        ("velora_predictions_total", "Predictions that were made.", report.predictions),
        ("velora_events_total", "Events in the windows of pairs.", pairs.events),
    )
    for name, text, value in plain:
        yield from (*_family(name, "counter", text), sample(name, value))
    if report.actions is not None:
        yield from _family("velora_actions_total", "counter", "Actions that started, by label.")
        for label, value in sorted(dict(report.actions).items()):
            yield sample("velora_actions_total", value, {"label": label})
    yield from _family("velora_dropped_total", "counter", "What was lost, by kind and cause.")
    for kind, cause, value in (
        ("frame", "late", frames.late),
        ("frame", "unplaced", frames.unplaced),
        ("frame", "overrun", frames.dropped),
        ("pair", "overrun", pairs.dropped),
        ("events", "overrun", pairs.dropped_events),
        ("events", "between_windows", pairs.skipped_events),
    ):
        yield sample("velora_dropped_total", value, {"kind": kind, "cause": cause})
    for sink, value in dict(report.sink_drops).items():
        yield sample("velora_dropped_total", value, {"kind": "prediction", "cause": f"sink_{sink}"})
    yield from _family("velora_absent_pairs_total", "counter", "Pairs without this camera.")
    yield sample("velora_absent_pairs_total", pairs.without_rgb, {"camera": "rgb"})
    yield sample("velora_absent_pairs_total", pairs.without_events, {"camera": "event"})


def _process() -> Iterator[Gauge]:
    """Memory as the usual clients name it; nothing where there is no /proc."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return
    size = pages * os.sysconf("SC_PAGE_SIZE")
    yield Gauge("process_resident_memory_bytes", "Resident memory size in bytes.", ({}, size))
