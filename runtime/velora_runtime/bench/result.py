"""What a benchmark found, as data: a versioned schema that files are read back by.

The schema's version rises with every field that is new or changed: unknown fields are refused, so that a file
means the same to whoever reads it. Milliseconds and seconds carry their unit in their name.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from velora_edge.cache import replace_file
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence

SCHEMA_VERSION = 1
Outcome = Literal["PASS", "FAIL", "INCONCLUSIVE"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Latency(_Strict):
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


class Part(_Strict):
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


class Stage(_Strict):
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


class LiveRun(_Strict):
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


class Live(_Strict):
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


class Probe(_Strict):
    """One step of the search for the highest rate.

    Attributes:
        rate: that was tried.
        fits: nothing was dropped, and the cameras were not held up.
        why: what was lost first; None where it fits.
    """

    rate: float
    fits: bool
    why: str | None


class Limit(_Strict):
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


class Rail(_Strict):
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


class Power(_Strict):
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


class Clock(_Strict):
    """A clock's range and its value, MHz."""

    name: str
    min_mhz: int | None
    now_mhz: int | None
    max_mhz: int | None


class Conditions(_Strict):
    """The machine at one moment.

    Attributes:
        clocks: of processor, GPU and memory, where they can be seen.
        clocks_locked: they cannot move; None where nobody can tell.
        temperatures_c: by sensor.
        throttled: counters and states of throttling, by name.
        cores: that the process may use.
    """

    clocks: list[Clock]
    clocks_locked: bool | None
    temperatures_c: dict[str, float]
    throttled: dict[str, int]
    cores: int


class During(_Strict):
    """The machine while the live runs ran.

    Attributes:
        samples: how many were taken.
        hottest_c: the highest temperature.
        clocks_mhz: lowest and highest value by clock.
        throttled: highest value of each counter and state of throttling.
    """

    samples: int
    hottest_c: float | None
    clocks_mhz: dict[str, tuple[int, int]]
    throttled: dict[str, int]


class Share(_Strict):
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


class Roofline(_Strict):
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


class Stretch(_Strict):
    """How still the machine was while something was measured.

    Attributes:
        seconds: that it took.
        others_cores: that other programs kept busy; None where nobody tells.
        taken_cores: that a virtual machine's host took away; None likewise.
    """

    seconds: float
    others_cores: float | None = None
    taken_cores: float | None = None


class Machine(_Strict):
    """What the figures hold for.

    Attributes:
        board: a Jetson's model, else the processor.
        jetpack: a Jetson's; None elsewhere.
        l4t: likewise.
        power_mode: likewise, by name.
        gpu: its name; None without one.
        cpu: the processor.
        cores: that the process may use.
        memory_gb: of the machine.
        os: its name.
        kernel: its release.
        is_container: it runs in one.
        versions: of Python and of the packages that matter.
    """

    board: str
    jetpack: str | None
    l4t: str | None
    power_mode: str | None
    gpu: str | None
    cpu: str | None
    cores: int
    memory_gb: float | None
    os: str
    kernel: str
    is_container: bool
    versions: dict[str, str]


class Model(_Strict):
    """The bundle.

    Attributes:
        name: by its manifest.
        path: as the user gave it.
        precision: of its graphs.
        architecture: by its manifest.
        trained: False for random weights.
        megabytes: of the streaming graphs and their weights.
        clip_length: pairs that a decision looks at.
        stride: pairs from one to the next of these.
        image_size: height and width.
        sha256: of the manifest.
    """

    name: str
    path: str
    precision: str
    architecture: str
    trained: bool
    megabytes: float
    clip_length: int
    stride: int
    image_size: tuple[int, int]
    sha256: str


class Check(_Strict):
    """One limit.

    Attributes:
        name: the option.
        limit: that was asked for.
        values: of each run.
        outcome: INCONCLUSIVE where some runs keep the limit and others do not.
    """

    name: str
    limit: float
    values: list[float]
    outcome: Outcome


class Reason(_Strict):
    """Why a figure cannot be trusted.

    Attributes:
        text: what was found.
        remedy: the command, or the deed, that mends it.
    """

    text: str
    remedy: str


class Verdict(_Strict):
    """What the limits and the machine say together."""

    outcome: Outcome
    checks: list[Check]
    reasons: list[Reason]


class Change(_Strict):
    """A figure of this result beside the same one of another.

    Attributes:
        name: of the figure.
        old: its median over the rounds, or runs, of the other result.
        new: of this one.
        change: by how much it is worse, as a share of the old one; negative where it is better.
        noise: by how much rounds of one result differ among themselves, the larger of both.
        outcome: FAIL where it is worse by more than was allowed, whatever rounds are compared.
    """

    name: str
    old: float
    new: float
    change: float
    noise: float
    outcome: Outcome


class Comparison(_Strict):
    """A result beside an older one.

    Attributes:
        with_date: of the older one.
        max_regression: share by which a figure may be worse.
        changes: every figure that both have, the worst first.
        missing: figures of the older one that this one lacks.
        reasons: why the two cannot be compared, or not for sure.
        outcome: of all of them.
    """

    with_date: str
    max_regression: float
    changes: list[Change]
    missing: list[str]
    reasons: list[Reason]
    outcome: Outcome


class Result(_Strict):
    """One benchmark.

    Attributes:
        v: the schema's version.
        date: UTC, ISO 8601.
        reproduce: the command line.
        quick: shorter than what can be relied on.
        seconds: that it took.
        stretches: of it, by what was measured.
    """

    v: int = Field(SCHEMA_VERSION, ge=1)
    date: str
    reproduce: str
    quick: bool
    seconds: float
    stretches: dict[str, Stretch]
    machine: Machine
    models: list[Model]
    parts: list[Part]
    live: Live | None
    limits: list[Limit]
    power: Power | None
    before: Conditions
    during: During | None
    after: Conditions
    roofline: Roofline | None
    sweeps: dict[str, list[dict[str, float]]] = Field(default_factory=dict)
    verdict: Verdict
    comparison: Comparison | None = None


def write_result(result: Result, path: Path) -> None:
    """Write a result as JSON, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    text = json.dumps(result.model_dump(mode="json"), indent=1) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, text.encode(), mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place with --json"
        ) from error


def read_result(path: Path) -> Result:
    """A result that `write_result` wrote.

    Raises:
        InputError: if it cannot be read, or is of another version.
    """
    again = "measure again with velora bench --json"
    try:
        raw: Any = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise InputError(f"cannot be read: {error}", path=path, remedy=again) from error
    version = raw.get("v") if isinstance(raw, dict) else None
    if version != SCHEMA_VERSION:
        problem = f"expected a result of velora bench with v {SCHEMA_VERSION}, got {version!r}"
        raise InputError(problem, path=path, remedy=again)
    try:
        return Result.model_validate(raw)
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)[:5]
        )
        raise InputError(problems, path=path, remedy=again) from error
