"""Figures that a benchmark measures, as values: parts, live runs, limits, power, the roofline."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from collections.abc import Sequence


class Strict(BaseModel):
    """A value whose fields are all known: an unknown one is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(Strict):
    """Percentiles of times in milliseconds.

    Attributes:
        n: how many times there are; where they are fewer than 1000, p99.9 is the largest.
        jitter: mean difference of a time from the one before it, without sign.
    """

    n: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    p999: float
    max: float
    jitter: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Latency | None:
        """Of times in the order in which they were taken; None where there are none."""
        if not len(times_ms):
            return None
        values = np.asarray(times_ms, np.float64)
        p50, p90, p95, p99, p999 = np.percentile(values, (50, 90, 95, 99, 99.9), method="higher").tolist()
        jitter = float(np.abs(np.diff(values)).mean()) if len(values) > 1 else 0.0
        found = {"mean": float(values.mean()), "p50": p50, "p90": p90, "p95": p95, "p99": p99, "p999": p999}
        rounded = {key: round(value, 3) for key, value in found.items()}
        return cls(n=len(values), **rounded, max=round(float(values.max()), 3), jitter=round(jitter, 3))


class Part(Strict):
    """One part by itself, warm, timed in turn with the others.

    Attributes:
        name: what it is: decode EVT3, pack, rgb tower, head, streaming step, clip, ...
        model: the bundle's name; None where it has none.
        backend: the engine's name; None for what runs on the host.
        precision: of the graphs; None likewise.
        n: runs.
        p50_ms: median.
        p99_ms: 99th percentile.
        rounds_ms: medians of five stretches of the measurement, in order.
        per_s: what one run gets through, times runs a second: events, windows, decisions.
        unit: what `per_s` counts.
    """

    name: str
    model: str | None = None
    backend: str | None = None
    precision: str | None = None
    n: int
    p50_ms: float
    p99_ms: float
    rounds_ms: list[float]
    per_s: float
    unit: str

    @property
    def key(self) -> tuple[str, str | None, str | None, str | None]:
        """What it is compared by."""
        return self.name, self.model, self.backend, self.precision

    @property
    def title(self) -> str:
        """For people, on one line."""
        return ", ".join(part for part in self.key if part is not None)


class Stage(Strict):
    """Where a decision's time goes in a live run.

    Attributes:
        name: of the stage.
        side: host: our code and the libraries that it calls; engine: within the backend's calls.
        wall_ms: a decision, from its beginning to its end; None where it is spread over many calls.
        cpu_ms: of its thread a decision; an engine's pool of threads is not in it.
        busy: share of the time in which its thread had a core.
    """

    name: str
    side: Literal["host", "engine"]
    wall_ms: float | None
    cpu_ms: float | None
    busy: float | None


class LiveRun(Strict):
    """One run of the whole pipeline, after its warm-up.

    Attributes:
        seconds: that were measured.
        decisions: in them.
        pictures: that were exposed in them.
        last_event_ms: from the instant of the window's end, to which events are counted, to the decision.
        exposure_ms: from a picture's exposure to its decision.
        missed: pictures (windows, where there are none) without a decision within the deadline.
        due: pictures (windows) that a decision was due for.
        dropped: what was lost, by kind and cause, in the whole run; nothing that is 0.
        cores: that the process kept busy.
        memory_mb: resident, the most.
        cameras_late_ms: by how much the cameras themselves sent too late, the most.
        cameras_held_ms: for how long the pipeline did not take what they sent, the most at once.
        cameras_cores: that the generated cameras kept busy.
        others_cores: that other programs kept busy.
        taken_cores: that a virtual machine's host took away.
    """

    seconds: float
    decisions: int
    pictures: int
    last_event_ms: Latency | None
    exposure_ms: Latency | None
    missed: int
    due: int
    dropped: dict[str, int]
    cores: float | None
    memory_mb: float | None
    cameras_late_ms: float
    cameras_held_ms: float
    cameras_cores: float | None
    others_cores: float | None
    taken_cores: float | None

    @property
    def fps(self) -> float:
        """Decisions a second."""
        return self.decisions / self.seconds if self.seconds else 0.0


class Live(Strict):
    """The whole pipeline, paced as cameras pace it.

    Attributes:
        events: the recording that the event camera repeats; None without one.
        event_rate_hz: events a second that were sent.
        fps: pictures a second that were sent.
        picture_px: width and height of the pictures.
        deadline_ms: from exposure to decision; from the window's end where there are no pictures.
        engine: what the model ran on.
        passed_over: backends that could not run it, each with the reason.
        runs: in order.
        last_event_ms: of all runs together.
        exposure_ms: of all runs together.
        stages: of all runs together.
        samples_ms: the latencies of all runs that the verdict is about, in order.
    """

    events: str | None
    event_rate_hz: float
    fps: float
    picture_px: tuple[int, int]
    deadline_ms: float
    engine: str
    passed_over: list[str]
    runs: list[LiveRun]
    last_event_ms: Latency | None
    exposure_ms: Latency | None
    stages: list[Stage]
    samples_ms: list[float]


class Probe(Strict):
    """One step of the search for the highest rate.

    Attributes:
        rate: that was tried.
        fits: nothing was dropped, and the cameras were not held up.
        why: what was lost first; None where it fits.
    """

    rate: float
    fits: bool
    why: str | None


class Limit(Strict):
    """The highest rate without a drop.

    Attributes:
        of: frames or events a second.
        highest: the highest rate that fits; None where not even the lowest does.
        lowest_failing: the lowest that does not; None where all fit.
        stage: that gives way; None where none did.
        because: what says so.
        other_rate: of the other camera meanwhile.
        others_cores: that other programs kept busy in a step, the most; None where nobody tells.
        taken_cores: that a virtual machine's host took away, likewise.
        probes: in the order in which they were tried.
    """

    of: Literal["fps", "events"]
    highest: float | None
    lowest_failing: float | None
    stage: str | None
    because: str | None
    other_rate: float
    others_cores: float | None = None
    taken_cores: float | None = None
    probes: list[Probe]


class Rail(Strict):
    """Power by one sensor.

    Attributes:
        name: of the rail, card or package.
        source: ina3221, nvml or rapl.
        baseline_w: mean before the runs, nothing of ours running.
        during_w: mean during them.
        is_total: it is the one that energy is told by.
    """

    name: str
    source: str
    baseline_w: float
    during_w: float
    is_total: bool


class Power(Strict):
    """Energy of the live runs.

    Attributes:
        rails: every sensor.
        mj_per_decision: of the total rails, less their baseline, a decision.
        total_mj_per_decision: the same with the baseline in it.
        why_none: why there is no figure; None where there is one.
    """

    rails: list[Rail]
    mj_per_decision: float | None
    total_mj_per_decision: float | None
    why_none: str | None


class Share(Strict):
    """What part of the device's measured rates an engine's part reaches.

    Attributes:
        part: rgb, event, diff or head.
        backend: the engine's name.
        precision: of the graphs.
        gflop: multiplications and additions of one run, 10^9.
        megabytes: weights, inputs and outputs of one run, 10^6 bytes: the least that must be moved.
        gflops: reached.
        gigabytes_s: reached.
        arithmetic: share of the measured arithmetic rate.
        memory: share of the measured memory rate.
        bound: the rate that limits it, by the two shares.
    """

    part: str
    model: str
    backend: str
    precision: str
    gflop: float
    megabytes: float
    gflops: float
    gigabytes_s: float
    arithmetic: float | None
    memory: float
    bound: Literal["arithmetic", "memory"]


class Roofline(Strict):
    """Measured rates of this device and what the engines reach of them.

    Attributes:
        gflops: arithmetic by precision, of a matrix product.
        gigabytes_s: of a copy that does not fit the caches.
        shares: by engine and part.
        why_none: what could not be measured, and why.
    """

    gflops: dict[str, float]
    gigabytes_s: float
    shares: list[Share]
    why_none: list[str]
