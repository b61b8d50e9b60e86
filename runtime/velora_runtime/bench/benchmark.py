"""One benchmark from its options to its result."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.bundle import find_model, open_bundle
from velora_runtime.bench.acceptance import Limits, judge
from velora_runtime.bench.live import LiveSettings, measure_live, summarise
from velora_runtime.bench.machine import ROOT, describe, describe_model, look, open_nvml
from velora_runtime.bench.meters import LoadMeter, PowerMeter, energy, find_sensors
from velora_runtime.bench.parts import LEAST, Engines, host_parts, time_in_turn
from velora_runtime.bench.result import BenchResult, Stretch
from velora_runtime.engines.base import EngineOptions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from velora_runtime.bench.figures import Limit, Live, Part, Power, Roofline
    from velora_runtime.bench.live import Measured
    from velora_runtime.bench.machine import Nvml
    from velora_runtime.bench.meters import Sensor
    from velora_runtime.bench.result import During

WHAT = ("parts", "live", "power", "roofline", "saturation", "sweep")
"""What can be measured, in this order; power is that of the live runs."""
WITH_OTHER_PROCESSES = {"live", "saturation: fps", "saturation: events", "sweep"}
"""What starts the cameras' and the session's processes."""
SWEPT_EVENTS = (0.5e6, 1e6, 2e6, 5e6, 10e6, 20e6)
SWEPT_FPS = (5.0, 10.0, 15.0, 30.0, 60.0)


@dataclass(frozen=True, slots=True)
class BenchOptions:
    """What a user asked for; `velora bench --help` explains each.

    Attributes:
        models: bundles' folders, or demo; the first is the one that runs live.
        live: the cameras' pace.
        limits: that the verdict is about.
        what: of `WHAT`.
        quick: shorter than what can be relied on.
        part_seconds: for all parts together.
        decoded: events that a run decodes.
        baseline_s: for the power of a machine that does nothing.
        search_s: of each step of the search for the highest rate.
        reproduce: the command line.
        root: of the file system, where the machine tells of itself.
    """

    models: tuple[str, ...] = ("demo",)
    live: LiveSettings = field(default_factory=LiveSettings)
    limits: Limits = field(default_factory=Limits)
    what: frozenset[str] = frozenset(WHAT)
    quick: bool = False
    part_seconds: float = 20.0
    decoded: int = 4_000_000
    baseline_s: float = 5.0
    search_s: float = 5.0
    reproduce: str = "velora bench"
    root: Path = ROOT


class Benchmark:
    """Single-threaded: the main thread.

    Args:
        options: what was asked for.
        note: gets lines for people while it runs.
    """

    def __init__(self, options: BenchOptions, note: Callable[[str], None]) -> None:
        self._options, self._note = options, note
        self._stretches: dict[str, Stretch] = {}
        self._bundles = {model: open_bundle(model) for model in options.models}

    def run(self) -> BenchResult:
        """Measure what was asked for.

        Raises:
            VeloraError: if a model cannot be opened, no engine can be had, or a session fails.
        """
        began_s, options = time.monotonic(), self._options
        nvml = open_nvml() if options.root == ROOT else None
        with contextlib.ExitStack() as closing:
            if nvml is not None:
                closing.callback(nvml.close)
            before, machine = look(options.root, nvml), describe(options.root, nvml)
            parts, roofline = self._parts()
            live, power, during = self._live(nvml)
            limits = list(self._limits())
            sweeps = self._sweep()
            after = look(options.root, nvml)
        models = [describe_model(bundle, model) for model, bundle in self._bundles.items()]
        return BenchResult(
            date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
            reproduce=options.reproduce,
            quick=options.quick,
            seconds=round(time.monotonic() - began_s, 1),
            stretches=self._stretches,
            machine=machine,
            models=models,
            parts=parts,
            live=live,
            limits=limits,
            power=power,
            before=before,
            during=during,
            after=after,
            roofline=roofline,
            sweeps=sweeps,
            verdict=judge(
                options.limits, live, power, machine, before, during, after, self._stretches, limits
            ),
        )

    def _parts(self) -> tuple[list[Part], Roofline | None]:
        options = self._options
        wanted = options.what & {"parts", "roofline"}
        if not wanted:
            return [], None
        engine = EngineOptions(options.live.device, options.live.threads)  # type: ignore[arg-type]
        manifest = self._bundles[options.models[0]].manifest
        recording = options.live.events or str(find_model("demo").parent / "demo.raw")
        least = 3 if options.quick else LEAST
        with (
            tempfile.TemporaryDirectory() as folder,
            Engines(self._bundles, options.live.backend, engine) as engines,
        ):
            with self._timed("parts", f"{len(engines.candidates)} engines and the host, in turn"):
                host = host_parts(recording, manifest, options.decoded, options.live.picture_px, Path(folder))
                candidates = [*(host if "parts" in options.what else []), *engines.candidates]
                parts = time_in_turn(candidates, options.part_seconds, least)
            for reason in engines.passed_over:
                self._note(f"passed over {reason}")
        if "roofline" not in options.what:
            return parts, None
        with self._timed("roofline", "what this device can do"):
            from velora_runtime.bench.roofline import measure_roofline

            return parts, measure_roofline(list(self._bundles.values()), parts, options.live.threads)

    def _live(self, nvml: Nvml | None) -> tuple[Live | None, Power | None, During | None]:
        options = self._options
        if "live" not in options.what:
            return None, None, None
        wants_power = "power" in options.what
        sensors, why_none = find_sensors(options.root, nvml)
        baseline_w = self._baseline(sensors, nvml) if wants_power and sensors else [0.0] * len(sensors)
        settings = options.live
        told = f"{settings.runs} runs of {settings.seconds:g} s"
        with self._timed("live", told), PowerMeter(sensors, options.root, nvml) as meter:
            runs = measure_live(options.models[0], settings)
        live = summarise(runs, settings)
        power = None
        if wants_power:
            during_w = meter.watts(_stretches(runs))
            seconds = sum(run.seconds for run in live.runs)
            decisions_hz = sum(run.decisions for run in live.runs) / seconds if seconds else 0.0
            power = energy(sensors, baseline_w, during_w, decisions_hz, why_none)
        return live, power, meter.during

    def _baseline(self, sensors: Sequence[Sensor], nvml: Nvml | None) -> list[float]:
        with self._timed("baseline", "power of the machine at rest"):
            with PowerMeter(sensors, self._options.root, nvml) as meter:
                time.sleep(self._options.baseline_s)
            return meter.watts()

    def _limits(self) -> Iterator[Limit]:
        options = self._options
        if "saturation" not in options.what:
            return
        from velora_runtime.bench.saturation import find_highest

        settings = replace(options.live, seconds=options.search_s, runs=1)
        model = options.models[0]
        if settings.has_rgb:
            with self._timed("saturation: fps", "the highest frame rate without a drop"):
                yield find_highest("fps", model, settings, self._note)
        if settings.event_rate_hz:
            with self._timed("saturation: events", "the highest event rate without a drop"):
                yield find_highest("events", model, settings, self._note)

    def _sweep(self) -> dict[str, list[dict[str, float]]]:
        """Latency and cost against event rate and frame rate, one short run each."""
        options = self._options
        if "sweep" not in options.what:
            return {}
        settings = replace(options.live, seconds=options.search_s, runs=1)
        found: dict[str, list[dict[str, float]]] = {}
        with self._timed("sweep", "cost against event rate and frame rate"):
            if settings.event_rate_hz:
                rates = [replace(settings, event_rate_hz=rate) for rate in SWEPT_EVENTS]
                found["event_rate_hz"] = [self._swept(one, one.event_rate_hz) for one in rates]
            found["fps"] = [self._swept(replace(settings, fps=fps), fps) for fps in SWEPT_FPS]
        rows = [row for of_one in found.values() for row in of_one]
        others, taken = (
            max((row[name] for row in rows if name in row), default=None)
            for name in ("others_cores", "taken_cores")
        )
        whole = self._stretches["sweep"].seconds
        self._stretches["sweep"] = Stretch(seconds=whole, others_cores=others, taken_cores=taken)
        return found

    def _swept(self, settings: LiveSettings, at: float) -> dict[str, float]:
        live = summarise(measure_live(self._options.models[0], settings), settings)
        run, latency = live.runs[0], live.exposure_ms or live.last_event_ms
        row: dict[str, Any] = {"at": at, "cores": run.cores, "missed": run.missed / max(run.due, 1)}
        row |= {"dropped": sum(run.dropped.values())}
        row |= {"others_cores": run.others_cores, "taken_cores": run.taken_cores}
        row |= {} if latency is None else {"p50_ms": latency.p50, "p99_ms": latency.p99}
        return {name: value for name, value in row.items() if value is not None}

    @contextlib.contextmanager
    def _timed(self, name: str, what: str) -> Iterator[None]:
        self._note(f"{name}: {what}")
        begun_ns = time.monotonic_ns()
        with LoadMeter({}) as meter:
            yield
        now_ns = time.monotonic_ns()
        seconds = round((now_ns - begun_ns) / 1e9, 1)
        if name in WITH_OTHER_PROCESSES:  # which are ours, and told of by run
            self._stretches[name] = Stretch(seconds=seconds)
            return
        load = meter.between(begun_ns, now_ns)
        self._stretches[name] = Stretch(seconds=seconds, others_cores=load.others, taken_cores=load.taken)


def _stretches(runs: Sequence[Measured]) -> list[tuple[float, float]]:
    return [(run.first_ns / 1e9, run.last_ns / 1e9) for run in runs]
