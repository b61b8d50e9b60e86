"""The whole pipeline, paced as cameras pace it: latency, misses, drops, and where the time goes."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from velora_edge.bundle import find_model
from velora_edge.errors import EngineError, VeloraError
from velora_runtime.bench.cameras import MOST_PICTURES
from velora_runtime.bench.figures import Latency, Live, LiveRun, Stage
from velora_runtime.bench.meters import LoadMeter

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from velora_runtime.bench.meters import Load

START_S = 90.0
"""The longest that cameras may take to start."""
THREADS = {
    "camera tcp": "events: receive and scan",
    "camera http": "pictures: receive and decode",
    "rgb": "pictures: resize",
    "pack": "pack",
    "sink-": "sinks",
}
"""Stages by how the runtime's threads are called."""


@dataclass(frozen=True, slots=True)
class LiveSettings:
    """How the cameras are paced and how long it is measured.

    Attributes:
        event_rate_hz: events a second; 0: no event camera.
        fps: pictures a second, windows a second where there are none; 0: no RGB camera.
        seconds: of a run that are measured.
        warm_up_s: before them.
        runs: how many.
        picture_px: width and height of the pictures.
        deadline_ms: from exposure to decision.
        events: recording that is repeated; None: the packaged one.
        rgb: video that is repeated; None: the packaged one.
        backend: of the engine, or auto.
        device: that it runs on.
        threads: of the arithmetic on the CPU; 0: the backend chooses.
        has_rgb: there is an RGB camera.
    """

    event_rate_hz: float = 5e6
    fps: float = 30.0
    seconds: float = 20.0
    warm_up_s: float = 2.0
    runs: int = 3
    picture_px: tuple[int, int] = (640, 480)
    deadline_ms: float = 100.0
    events: str | None = None
    rgb: str | None = None
    backend: str = "auto"
    device: str = "auto"
    threads: int = 0
    has_rgb: bool = True


@dataclass(slots=True)
class Measured:
    """One run as it was seen: what the session, the cameras and the machine said.

    Attributes:
        said: of the session's process.
        state: of the cameras.
        load: of the machine, while the run was measured.
        event_rate_hz: that the cameras sent, which is near the one that was asked for.
        first_ns: when the measurement began.
        last_ns: when it ended.
        event_ms: from the window's end to the decision, of each decision.
        exposure_ms: from the picture's exposure to the decision, of each.
        dropped: pictures and events after the warm-up, by kind.
        missed: pictures (windows) without a decision in time.
        due: pictures (windows) that a decision was due for.
    """

    said: dict[str, Any]
    state: dict[str, Any]
    load: Load
    event_rate_hz: float = 0.0
    first_ns: int = 0
    last_ns: int = 0
    event_ms: list[float] = field(default_factory=list)
    exposure_ms: list[float] = field(default_factory=list)
    dropped: dict[str, int] = field(default_factory=dict)
    missed: int = 0
    due: int = 0

    @property
    def seconds(self) -> float:
        """That were measured."""
        return (self.last_ns - self.first_ns) / 1e9

    @property
    def latencies_ms(self) -> list[float]:
        """From exposure to decision; from the window's end where there are no pictures."""
        return self.exposure_ms or self.event_ms


class Cameras:
    """Generated cameras in their own process; they serve one run after the other. Use it in a `with` block.

    Attributes:
        event_rate_hz: that is sent, which is near the one that was asked for.
        pid: of the process.
    """

    def __init__(self, settings: LiveSettings) -> None:
        assets = find_model("demo").parent
        self._settings = settings
        fps = settings.fps if settings.has_rgb else 0
        self._command = [sys.executable, "-m", "velora_runtime.bench.cameras"]
        self._command += ["--events", settings.events or str(assets / "demo.raw")]
        self._command += ["--video", settings.rgb or str(assets / "demo.mp4")]
        self._command += ["--rate", repr(settings.event_rate_hz), "--fps", repr(fps)]
        self._command += ["--size", "{}x{}".format(*settings.picture_px)]
        self.event_rate_hz, self.pid = 0.0, 0

    def __enter__(self) -> Cameras:
        pipe = subprocess.PIPE
        self._process = subprocess.Popen(self._command, stdin=pipe, stdout=pipe, stderr=pipe, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise VeloraError(f"the generated cameras did not start: {self._last_words()}")
        self._ports = json.loads(line)
        self.pid = self._process.pid
        self.event_rate_hz = float(self._ports.get("rate_hz", 0.0))
        return self

    def __exit__(self, *error: object) -> None:
        self._process.terminate()
        self._process.communicate()

    @property
    def events(self) -> str:
        """Where the event camera is, as velora-live takes it."""
        port = self._ports["events"]
        return "none" if port is None else f"tcp://127.0.0.1:{port}"

    @property
    def rgb(self) -> str:
        """Where the RGB camera is, likewise."""
        return f"http://127.0.0.1:{self._ports['pictures']}/" if self._settings.has_rgb else "none"

    def state(self) -> dict[str, Any]:
        """When the stream began, pictures were exposed, and by how much things left too late."""
        with urllib.request.urlopen(
            f"http://127.0.0.1:{self._ports['pictures']}/state", timeout=10
        ) as answer:
            said: dict[str, Any] = json.loads(answer.read())
        return said

    def _last_words(self) -> str:
        _, error = self._process.communicate(timeout=START_S)
        return error.strip().splitlines()[-1] if error.strip() else "no reason was given"


def run_once(model: str, settings: LiveSettings, cameras: Cameras, jsonl: str | None = None) -> Measured:
    """Run a session on the cameras and measure it.

    Args:
        model: as velora-live takes it.
        settings: how long, and on what.
        cameras: started.
        jsonl: file for the decisions, or None.

    Raises:
        VeloraError: if the session fails; says what it said.
    """
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder) / "result.json"
        job = {
            "model": model,
            "events": cameras.events,
            "rgb": cameras.rgb,
            "seconds": settings.warm_up_s + settings.seconds,
            "backend": settings.backend,
            "device": settings.device,
            "threads": settings.threads,
            "rate_hz": None if settings.has_rgb else settings.fps,
            "jsonl": jsonl,
            "result": str(result),
        }
        path = Path(folder) / "job.json"
        path.write_text(json.dumps(job))
        command = [sys.executable, "-m", "velora_runtime.bench.session_run", str(path)]
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
            with LoadMeter({"session": process.pid, "cameras": cameras.pid}) as meter:
                _, error = process.communicate()
            state = cameras.state()
        if process.returncode:
            lines = error.strip().splitlines() or [f"exit code {process.returncode}"]
            raise EngineError(f"the benchmark's session failed: {lines[-1].removeprefix('error: ')}")
        said = json.loads(result.read_text())
    measured = _measure(said, state, meter, settings)
    measured.event_rate_hz = cameras.event_rate_hz
    return measured


def _measure(
    said: dict[str, Any], state: dict[str, Any], meter: LoadMeter, settings: LiveSettings
) -> Measured:
    decisions = said["decisions"]
    if not decisions:
        raise EngineError("no decision was made in the run; lengthen --seconds")
    first_ns = decisions[0][0] + round(settings.warm_up_s * 1e9)
    last_ns = decisions[-1][0]
    measured = Measured(said, state, meter.between(first_ns, last_ns), first_ns=first_ns, last_ns=last_ns)
    exposures = np.asarray(state["exposures_ns"], np.int64)
    decided: dict[int, float] = {}
    for now_ns, t_us, number, has_events, *_ in decisions:
        at = find_picture(exposures, number, now_ns) if number >= 0 else None
        exposure_ms = None if at is None else (now_ns - int(exposures[at])) / 1e6
        if at is not None and exposure_ms is not None:
            decided.setdefault(at, exposure_ms)
        if now_ns < first_ns:
            continue
        if has_events:
            measured.event_ms.append((now_ns - state["began_ns"] - t_us * 1000) / 1e6)
        if exposure_ms is not None:
            measured.exposure_ms.append(exposure_ms)
    counted = [row[5] for row in decisions if row[0] >= first_ns]
    if counted:
        measured.dropped = {kind: counted[-1][kind] - counted[0][kind] for kind in counted[0]}
    count_misses(measured, exposures, decided, settings)
    return measured


def find_picture(exposures: np.ndarray, number: int, now_ns: int) -> int | None:
    """Place of the newest picture with this number that was exposed before `now_ns`."""
    newest = int(np.searchsorted(exposures, now_ns)) - 1
    at = newest - (newest - number) % MOST_PICTURES
    return at if at >= 0 else None


def count_misses(
    measured: Measured, exposures: np.ndarray, decided: dict[int, float], settings: LiveSettings
) -> None:
    """Pictures (windows) that a decision was due for, and those that none came for in time."""
    deadline_ms = settings.deadline_ms
    if not settings.has_rgb:
        measured.due = max(round(measured.seconds * settings.fps), len(measured.event_ms))
        in_time = sum(value <= deadline_ms for value in measured.event_ms)
        measured.missed = measured.due - in_time
        return
    until_ns = measured.last_ns - round(deadline_ms * 1e6)
    due = np.flatnonzero((exposures >= measured.first_ns) & (exposures <= until_ns)).tolist()
    measured.due = len(due)
    measured.missed = sum(decided.get(at, float("inf")) > deadline_ms for at in due)


def measure_live(model: str, settings: LiveSettings) -> list[Measured]:
    """Run the pipeline as often as asked for, on one pair of cameras.

    Raises:
        VeloraError: if the cameras do not start or a session fails.
    """
    with Cameras(settings) as cameras:
        return [run_once(model, settings, cameras) for _ in range(settings.runs)]


def summarise(runs: Sequence[Measured], settings: LiveSettings) -> Live:
    """Several runs with the same settings as one result."""
    event_ms = [value for run in runs for value in run.event_ms]
    exposure_ms = [value for run in runs for value in run.exposure_ms]
    return Live(
        events=None if not settings.event_rate_hz else Path(settings.events or "demo.raw").name,
        event_rate_hz=round(runs[-1].event_rate_hz, 1),
        fps=settings.fps,
        picture_px=settings.picture_px,
        deadline_ms=settings.deadline_ms,
        engine=runs[-1].said["engine"],
        passed_over=runs[-1].said["passed_over"],
        runs=[_summary(run) for run in runs],
        last_event_ms=Latency.of(event_ms),
        exposure_ms=Latency.of(exposure_ms),
        stages=list(_stages(runs)),
        samples_ms=[round(value, 2) for value in (exposure_ms or event_ms)],
    )


def _summary(run: Measured) -> LiveRun:
    exposures = np.asarray(run.state["exposures_ns"], np.int64)
    pictures = int(((exposures >= run.first_ns) & (exposures <= run.last_ns)).sum())
    samples = [sample for sample in run.said["samples"] if run.first_ns <= sample["ns"] <= run.last_ns]
    load = run.load
    return LiveRun(
        seconds=round(run.seconds, 3),
        decisions=max(len(run.exposure_ms), len(run.event_ms)),
        pictures=pictures,
        last_event_ms=Latency.of(run.event_ms),
        exposure_ms=Latency.of(run.exposure_ms),
        missed=run.missed,
        due=run.due,
        dropped=lost(run),
        cores=load.cores.get("session"),
        memory_mb=round(max(sample["bytes"] for sample in samples) / 1e6, 1) if samples else None,
        cameras_late_ms=round(cameras_late_ms(run), 1),
        cameras_held_ms=round(cameras_held_ms(run), 1),
        cameras_cores=load.cores.get("cameras"),
        others_cores=load.others,
        taken_cores=load.taken,
    )


def cameras_late_ms(run: Measured) -> float:
    """By how much the cameras themselves sent too late, the most."""
    return _lateness(run, 1)


def cameras_held_ms(run: Measured) -> float:
    """For how long the pipeline did not take what they sent, the most at once."""
    return _lateness(run, 2)


def _lateness(run: Measured, column: int) -> float:
    bins = run.state["lateness"]
    return max((entry[column] for entry in bins if run.first_ns <= entry[0] <= run.last_ns), default=0.0)


def lost(run: Measured) -> dict[str, int]:
    """What a run dropped, by kind and cause; nothing that is 0. The warm-up counts too."""
    report = run.said["report"]
    frames, dropped, events = report["frames"], report["dropped"], report["cameras"].get("event", {})
    counts = {
        "pictures: camera overrun": frames["overrun"],
        "pictures: before packing": dropped["rgb"] - frames["overrun"] - dropped["pairs"],
        "pictures: late": frames["late"],
        "pairs: before inference": dropped["pairs"],
        **{f"decisions: sink {name}": n for name, n in dropped["sinks"].items()},
        **{f"events: {cause}": n for cause, n in events.get("events", {}).get("dropped", {}).items()},
    }
    return {name: n for name, n in counts.items() if n > 0}


def _stages(runs: Sequence[Measured]) -> Iterator[Stage]:
    """Where the time of a decision goes, host's and engine's; of all runs together."""
    decisions = sum(max(len(run.exposure_ms), len(run.event_ms)) for run in runs)
    seconds = sum(run.seconds for run in runs)
    used = [thread_cpu_s(run) for run in runs]
    if not decisions or not seconds:
        return
    rows = [row[4] for run in runs for row in run.said["decisions"] if row[0] >= run.first_ns]
    pack_ms = float(np.mean([row["pack"] for row in rows]))
    for prefix, title in THREADS.items():
        threads = [cpu_s for thread in used for name, cpu_s in thread.items() if name.startswith(prefix)]
        if threads:
            cpu_s = sum(threads)
            wall_ms = round(pack_ms, 3) if title == "pack" else None
            yield _stage(title, "host", wall_ms, cpu_s, decisions, seconds)
    calls: dict[str, list[int]] = {}
    for run in runs:
        for name, counts in run.said["calls"].items():
            calls[name] = [a + b for a, b in zip(calls.get(name, [0, 0, 0]), counts, strict=True)]
    inside_s = 0.0
    all_decisions = sum(len(run.said["decisions"]) for run in runs)
    for name, (_, wall_ns, cpu_ns) in calls.items():
        share = decisions / max(all_decisions, 1)
        inside_s += cpu_ns / 1e9 * share
        title = "head" if name == "head" else f"{name} tower"
        wall_ms = wall_ns / 1e6 / max(all_decisions, 1)
        yield _stage(title, "engine", round(wall_ms, 3), cpu_ns / 1e9 * share, decisions, seconds)
    inference_s = sum(thread.get("inference", 0.0) for thread in used)
    yield _stage("beside the engine", "host", None, max(inference_s - inside_s, 0.0), decisions, seconds)


def _stage(
    name: str, side: Any, wall_ms: float | None, cpu_s: float, decisions: int, seconds: float
) -> Stage:
    busy = cpu_s / seconds
    return Stage(
        name=name, side=side, wall_ms=wall_ms, cpu_ms=round(cpu_s / decisions * 1e3, 3), busy=round(busy, 3)
    )


def thread_cpu_s(run: Measured) -> dict[str, float]:
    """CPU seconds by thread in the measured stretch."""
    samples = [sample for sample in run.said["samples"] if run.first_ns <= sample["ns"] <= run.last_ns]
    if len(samples) < 2:
        return {}
    first, last = samples[0]["threads"], samples[-1]["threads"]
    stretch = (run.last_ns - run.first_ns) / max(samples[-1]["ns"] - samples[0]["ns"], 1)
    return {name: (value - first.get(name, 0.0)) * stretch for name, value in last.items()}
