"""Report of a run: counters, histograms of durations, what live cameras deliver."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from velora_edge.clock import Clock

_STEPS = 200
"""Bins to a decade: neighbouring values are told apart to 1.2 %."""
_DECADES = 10


class Histogram:
    """Counts of values from 1 us to 10,000 s in bins of equal ratio; smaller and larger ones go to the ends.

    Single-threaded: whoever adds; read it once that has ended.

    Attributes:
        count: values added.
        highest: the largest of them, exact.
    """

    def __init__(self) -> None:
        self.count = 0
        self.highest = 0.0
        self._bins = [0] * (_STEPS * _DECADES + 1)

    def add(self, value_us: float) -> None:
        """Count a value, microseconds, not negative."""
        position = 0 if value_us < 1 else min(int(math.log10(value_us) * _STEPS) + 1, len(self._bins) - 1)
        self._bins[position] += 1
        self.count += 1
        self.highest = max(self.highest, float(value_us))

    def percentile(self, percent: float) -> float:
        """The value below or at which `percent` of the values lie, microseconds, to 1.2 %; 0 without any."""
        if not self.count:
            return 0.0
        wanted = max(1, math.ceil(self.count * percent / 100))
        position = int(np.searchsorted(np.cumsum(self._bins), wanted))
        upper = 0.0 if position == 0 else 10 ** (position / _STEPS)
        return float(min(upper, self.highest))

    def summary(self, scale: float = 1.0) -> dict[str, float]:
        """p50, p95, p99 and the largest, each divided by `scale`, to three decimals."""
        values = {f"p{percent}": self.percentile(percent) for percent in (50, 95, 99)}
        values["max"] = self.highest
        return {name: round(value / scale, 3) for name, value in values.items()}


@dataclass(frozen=True, slots=True)
class Delivery:
    """What a live camera has delivered so far.

    Attributes:
        counts: what came, by what it is: events, triggers, frames.
        dropped: what was lost, likewise, on its way or as the host was too slow.
        delay_us: how much later than it could have been there the latest data of the last seconds was there.
        drift_ppm: how much faster the host's clock runs than the camera's.
    """

    counts: Mapping[str, int]
    dropped: Mapping[str, int]
    delay_us: int
    drift_ppm: float


class CameraMeter:
    """Lines about what live cameras deliver: rates, drops, delay, drift. Single-threaded: the main thread.

    Args:
        cameras: each tells what it has delivered so far.
        clock: the host's.
        every_s: from one line to the next while the run goes on; None: none.
        note: gets them.
    """

    def __init__(
        self,
        cameras: Sequence[Callable[[], Delivery]],
        clock: Clock,
        every_s: float | None,
        note: Callable[[str], None],
    ) -> None:
        self._cameras, self._clock, self._note = cameras, clock, note
        self._every_us = None if every_s is None else round(every_s * 1e6)
        self._begin = self._last = self._look()

    def poll(self) -> None:
        """Tell what came since the last line, where one is due; called some times a second."""
        if not self._cameras or self._every_us is None:
            return
        if self._clock.now_us() - self._last[0] >= self._every_us:
            before, self._last = self._last, self._look()
            self._note(_perf_line(before, self._last))

    def whole(self) -> list[str]:
        """The line about all of the run; none without a live camera."""
        return [_perf_line(self._begin, self._look())] if self._cameras else []

    def _look(self) -> tuple[int, list[Delivery]]:
        return self._clock.now_us(), [camera() for camera in self._cameras]


def _perf_line(before: tuple[int, list[Delivery]], now: tuple[int, list[Delivery]]) -> str:
    seconds = max(now[0] - before[0], 1) / 1e6
    parts = []
    for old, new in zip(before[1], now[1], strict=True):
        rates = [f"{name} {(n - old.counts[name]) / seconds:,.1f}/s" for name, n in new.counts.items()]
        drops = [f"{n - old.dropped[name]:,} {name} dropped" for name, n in new.dropped.items()]
        parts.append(
            "  ".join(
                [*rates, *drops, f"delay {new.delay_us / 1e3:.1f} ms", f"drift {new.drift_ppm:+.1f} ppm"]
            )
        )
    return "perf   " + "; ".join(parts)


RATE_CAP = "rate cap"
"""The filter whose events count as dropped: there were too many. What others leave out was not wanted."""

STAGES = ("pack", "encode", "head", "total")


NOTABLE_US = 100_000
"""A camera that comes so late is told."""


class RunStart:
    """When a run began, and what was missing then. Single-threaded: the packing thread.

    A duration counts from the first pair of all cameras, and from the first window until there is one.
    """

    def __init__(self) -> None:
        self._first_us: int | None = None
        self._whole_us: int | None = None
        self._last_us: int | None = None
        self._missing: tuple[str, ...] = ()

    def begin(self, t_us: int) -> None:
        """A window ends at `t_us`."""
        self._first_us = t_us if self._first_us is None else self._first_us
        self._last_us = t_us

    def see(self, t_us: int, missing: tuple[str, ...]) -> None:
        """A pair was made at `t_us`, without these cameras."""
        if self._whole_us is None and missing:
            self._missing = self._missing or missing
        elif self._whole_us is None:
            self._whole_us = t_us

    def passed_us(self, t_us: int) -> int:
        """How much of the run's duration has passed."""
        start_us = self._first_us if self._whole_us is None else self._whole_us
        return 0 if start_us is None else t_us - start_us

    def warnings(self) -> list[str]:
        """What was missing at the start, where that was long enough to matter."""
        if not self._missing or self._first_us is None or self._last_us is None:
            return []
        names = " and ".join({"rgb": "pictures", "event": "events"}[camera] for camera in self._missing)
        if self._whole_us is None:
            return [f"no pair of both cameras: {names} were missing from the start"]
        late_us = self._whole_us - self._first_us
        return [f"the first {late_us / 1e6:.2f} s are without {names}"] if late_us >= NOTABLE_US else []


@dataclass(slots=True)
class FrameCounts:
    """Counts of RGB frames; written by the camera's thread, but `late` by the packing thread.

    Attributes:
        read: frames that the source gave.
        unplaced: without a place on the event clock (no trigger edge).
        early: before the start that was asked for.
        late: not later than the pair before.
        dropped: for newer ones, before they were packed.
        overrun: of a live camera, dropped before they were even read.
    """

    read: int = 0
    overrun: int = 0
    unplaced: int = 0
    early: int = 0
    late: int = 0
    dropped: int = 0


@dataclass(slots=True)
class PairCounts:
    """Counts of pairs; written by the packing thread.

    Attributes:
        packed: pairs that were made.
        without_rgb: of these, pairs without an RGB frame.
        without_events: of these, pairs without an event frame.
        empty: windows without either, of which no pair was made.
        passed_over: empty windows in long gaps of a recording, of which no pair was made.
        dropped: for newer ones, before the model saw them.
        dropped_events: events in their windows.
        dropped_rgb: RGB frames in them.
        events: in all windows.
        skipped_events: between windows, and after the last.
    """

    packed: int = 0
    without_rgb: int = 0
    without_events: int = 0
    empty: int = 0
    passed_over: int = 0
    dropped: int = 0
    dropped_events: int = 0
    dropped_rgb: int = 0
    events: int = 0
    skipped_events: int = 0


@dataclass(slots=True)
class ProvisionalCounts:
    """Counts of decisions between pairs.

    Attributes:
        is_asked: the run makes them: `made` predictions; of `idle` ones nothing was computed.
        left_out: by reason: `unpacked` (RGB thread), `overtaken`, `unseen` (packing), `late` (inference).
        total_us: from their events being there to the prediction.
    """

    is_asked: bool = False
    made: int = 0
    idle: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    total_us: Histogram = field(default_factory=Histogram)

    def add(self, total_us: int, *, is_idle: bool) -> None:
        """Count a prediction."""
        self.made, self.idle = self.made + 1, self.idle + is_idle
        if not is_idle:
            self.total_us.add(total_us)

    def as_dict(self) -> dict[str, Any]:
        """For `--summary`."""
        counts = {"predictions": self.made, "idle": self.idle, "left_out": self.left_out.total()}
        return counts | {"latency_ms": {"total": self.total_us.summary(1000)}}


@dataclass(slots=True)
class RunReport:
    """Report of a run. Each part is written by one thread and read once all have ended.

    Attributes:
        frames: the RGB camera's.
        pairs: the packing thread's.
        predictions: made; the inference thread's, as are the next three and the clips' span.
        idle: of these, the ones for which nothing was computed, since nothing moved.
        latency_us: by stage.
        skew_us: of the pairs that were seen, without sign.
        sink_drops: predictions that a slow sink did not get, by sink.
        first_us: time of the first pair, event clock.
        last_us: of the last one.
        wall_us: from start to end.
        was_stopped: the user ended it.
        engine_retries: calls of the engine that failed and were made again.
        cameras: what live cameras say of themselves, by `rgb` and `event`.
        clip_span_s: seconds from the first pair of a clip to its last, of late; None before it was known.
        actions: that started, by label; None in a run that does not decide.
        provisional: decisions between pairs.
        count_filtered: gives the events that filters have dropped so far, by the filter's name.
        perf: what live cameras delivered, one line; none without any.
        warnings: what was odd in the sources.
    """

    frames: FrameCounts = field(default_factory=FrameCounts)
    pairs: PairCounts = field(default_factory=PairCounts)
    predictions: int = 0
    idle: int = 0
    latency_us: dict[str, Histogram] = field(default_factory=lambda: {stage: Histogram() for stage in STAGES})
    skew_us: Histogram = field(default_factory=Histogram)
    sink_drops: dict[str, int] = field(default_factory=dict)
    first_us: int | None = None
    last_us: int | None = None
    wall_us: int = 0
    was_stopped: bool = False
    engine_retries: int = 0
    cameras: dict[str, Any] = field(default_factory=dict)
    clip_span_s: float | None = None
    actions: dict[str, int] | None = None
    provisional: ProvisionalCounts = field(default_factory=ProvisionalCounts)
    count_filtered: Callable[[], dict[str, int]] = dict
    perf: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    def dropped(self) -> dict[str, int]:
        """RGB frames and events dropped so far, as every prediction tells them."""
        rgb = self.frames.overrun + self.frames.dropped + self.pairs.dropped_rgb
        return {"rgb": rgb, "events": self.pairs.dropped_events + self.count_filtered().get(RATE_CAP, 0)}

    @property
    def unused_frames(self) -> int:
        """Frames that were read ahead when the run was ended."""
        paired = self.pairs.packed - self.pairs.without_rgb
        frames = self.frames
        return frames.read - paired - frames.unplaced - frames.early - frames.late - frames.dropped

    @property
    def recording_s(self) -> float:
        """Time between the first pair and the last, seconds."""
        return 0.0 if self.first_us is None or self.last_us is None else (self.last_us - self.first_us) / 1e6

    def as_dict(self) -> dict[str, Any]:
        """For `--summary`; every value is a plain one."""
        frames, pairs, wall_s = self.frames, self.pairs, self.wall_us / 1e6
        return {
            "v": 1,
            "pairs": pairs.packed,
            "predictions": self.predictions,
            "idle": self.idle,
            **({} if self.actions is None else {"actions": dict(self.actions)}),
            **({"provisional": self.provisional.as_dict()} if self.provisional.is_asked else {}),
            "dropped": {**self.dropped(), "pairs": pairs.dropped, "sinks": dict(self.sink_drops)},
            "frames": {
                "read": frames.read,
                "paired": pairs.packed - pairs.without_rgb,
                "unplaced": frames.unplaced,
                "early": frames.early,
                "late": frames.late,
                "unused": self.unused_frames,
                "overrun": frames.overrun,
            },
            "absent": {"rgb": pairs.without_rgb, "event": pairs.without_events},
            "empty_windows": pairs.empty,
            "passed_over_windows": pairs.passed_over,
            "engine_retries": self.engine_retries,
            "cameras": dict(self.cameras),
            "events": {
                "in_windows": pairs.events,
                "skipped": pairs.skipped_events,
                "filtered": self.count_filtered(),
            },
            "latency_ms": {stage: values.summary(1000) for stage, values in self.latency_us.items()},
            "skew_us": self.skew_us.summary() if self.skew_us.count else None,
            "clip_span_s": None if self.clip_span_s is None else round(self.clip_span_s, 6),
            "recording_s": round(self.recording_s, 6),
            "wall_s": round(wall_s, 6),
            "realtime_factor": round(self.recording_s / wall_s, 3) if wall_s else None,
            "stopped": self.was_stopped,
            "warnings": list(self.warnings),
        }

    def lines(self) -> list[str]:
        """For people, a few lines."""
        frames, pairs = self.frames, self.pairs
        lines = [
            f"{pairs.packed:,} pairs, {self.predictions:,} predictions; {self.recording_s:.2f} s of "
            f"recording in {self.wall_us / 1e6:.2f} s" + (", stopped" if self.was_stopped else ""),
            f"events {pairs.events:,} in windows, {pairs.skipped_events:,} skipped, "
            f"{pairs.dropped_events:,} dropped",
        ]
        if self.idle:
            lines.append(f"idle: {self.idle:,} of the predictions stood, since nothing moved")
        if (between := self.provisional).is_asked:
            lines.append(f"provisional: {between.made:,} predictions, {between.left_out.total():,} left out")
        if self.actions is not None:
            named = ", ".join(f"{label} {n:,}" for label, n in sorted(self.actions.items()))
            lines.append(f"actions: {named or 'none'}")
        lines += [f"{name}: {n:,} events dropped" for name, n in self.count_filtered().items() if n]
        if frames.read:
            lines.append(
                f"RGB frames {frames.read:,} read, {self.dropped()['rgb']:,} dropped, "
                f"{frames.unplaced:,} without a trigger, {frames.late:,} not later than the one before"
            )
        lines += self.perf
        absent = (pairs.without_rgb, pairs.without_events)
        if any(absent) and pairs.packed not in absent:
            lines.append(f"absent: RGB in {absent[0]:,} pairs, events in {absent[1]:,}")
        if self.skew_us.count:
            skew = self.skew_us.summary()
            lines.append(f"skew  p50 {skew['p50']:.0f}  p95 {skew['p95']:.0f}  max {skew['max']:.0f} us")
        stages = [*self.latency_us.items(), ("between", between.total_us)]
        lines += [_stage(name, values) for name, values in stages if values.count]
        if slow := [f"{n} {sink} dropped" for sink, n in self.sink_drops.items() if n]:
            lines.append(f"sinks too slow: {', '.join(slow)}")
        return lines


def _stage(name: str, values: Histogram) -> str:
    ms = values.summary(1000)
    return (
        f"{name:<6} p50 {ms['p50']:7.2f}  p95 {ms['p95']:7.2f}  p99 {ms['p99']:7.2f}  max {ms['max']:7.2f} ms"
    )
