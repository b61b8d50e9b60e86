"""One run, from what a user gave to its report: opens model, sources and sinks, and closes them."""

from __future__ import annotations

import contextlib
import json
import signal
import threading
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

from velora_edge.bundle import open_bundle
from velora_edge.clock import SystemClock
from velora_edge.errors import InputError, RecordingError
from velora_edge.events.filters.event_preprocessing import EventPreprocessing
from velora_edge.preprocessing.sources import NONE
from velora_edge.preprocessing.sync import SyncOptions
from velora_edge.preprocessing.windows import WindowRule
from velora_runtime.app.run_services import AttachOptions, RunFacts, RunServices
from velora_runtime.app.run_sources import LiveOptions, begin_at, choose_feed, open_sources, preprocess_events
from velora_runtime.cameras.camera import CameraStates
from velora_runtime.cameras.drivers.registry import is_live
from velora_runtime.engines.base import EngineOptions, RetryingEngine
from velora_runtime.engines.registry import open_engine
from velora_runtime.inference.recogniser import NullRecogniser, no_model
from velora_runtime.pipeline.supervisor import ServiceManager, Supervisor, realtime_interpreter
from velora_runtime.sinks.base import SinkContext
from velora_runtime.sinks.registry import open_sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from velora_edge.bundle import Bundle, Manifest
    from velora_edge.clock import Clock
    from velora_edge.events.accumulate.registration import RegistrationMap
    from velora_edge.events.base import EventStream
    from velora_edge.preprocessing.packer import Packer
    from velora_edge.preprocessing.sources import RGBSource
    from velora_runtime.app.run_sources import RunSources
    from velora_runtime.inference.decision import DecisionSettings
    from velora_runtime.pipeline.pipeline import Pace, Pipeline, RunInputs
    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Sink


@dataclass(frozen=True, slots=True)
class RunOptions:
    """What a user asked for; `velora-live --help` explains each.

    Attributes:
        model: a bundle's folder, or demo; None to recognise nothing.
        events: the event source.
        rgb: the RGB source.
        sync: how the two are brought together.
        pace: realtime or max.
        backend: the engine's, or auto.
        engine: what it runs on.
        outputs: sink and target, in order.
        duration_s: of the recording; None: all.
        rate_hz: windows a second for events alone; None: the model's own.
        sensor: width and height, for event files that do not tell.
        summary: where the report goes as JSON, or None.
        live: of live cameras.
        start_s: how far from the first event of a recording to begin.
        preprocessing: what is done to the events.
        attach: what runs beside the pipeline.
        decide: when actions start and end; None: nobody tells.
    """

    model: str | None
    events: str = NONE
    rgb: str = NONE
    sync: SyncOptions = field(default_factory=SyncOptions)
    pace: Pace = "realtime"
    backend: str = "auto"
    engine: EngineOptions = field(default_factory=EngineOptions)
    outputs: tuple[tuple[str, str], ...] = (("terminal", ""),)
    duration_s: float | None = None
    rate_hz: Fraction | None = None
    sensor: tuple[int, int] | None = None
    summary: str | None = None
    live: LiveOptions = field(default_factory=LiveOptions)
    start_s: float = 0.0
    preprocessing: EventPreprocessing = field(default_factory=EventPreprocessing)
    attach: AttachOptions = field(default_factory=AttachOptions)
    decide: DecisionSettings | None = None


def run_session(options: RunOptions, note: Callable[[str], None], clock: Clock | None = None) -> RunReport:
    """Run to the end of the sources, or until SIGINT or SIGTERM.

    Args:
        options: what was asked for.
        note: gets a line for people: choices that were made, and what was odd.
        clock: of all times; the system's own by default.

    Raises:
        InputError: if the model, a source or an output cannot be used.
        EngineError: if no engine can be had, or if it fails.
    """
    _check(options)
    clock = clock or SystemClock()
    with contextlib.ExitStack() as closing:
        bundle = None if options.model is None else open_bundle(options.model)
        manifest = no_model() if bundle is None else bundle.manifest
        supervisor = Supervisor(clock, note, ServiceManager())
        engine = None
        if bundle is not None and is_live(options.events, options.rgb):
            # First: a camera would not wait for it.
            engine = _open_engine(options, bundle, closing, note)
        opened = open_sources(
            options.events,
            options.rgb,
            options.sensor,
            options.pace,
            options.live,
            clock,
            supervisor.stop,
            note,
        )
        closing.callback(opened.close)
        begin_at(opened, options.start_s)
        source = opened.stream
        preprocessed = preprocess_events(opened, options.preprocessing, manifest)
        if bundle is not None and engine is None:
            engine = _open_engine(options, bundle, closing, note)
        attached = _attach(options, bundle, opened.stream, closing, note)
        tapped = opened.stream
        if tapped is not None:
            attached.listen_to_events(tapped)
        windows = WindowRule(manifest.event.window_us)
        packer = _make_packer(manifest, tapped, windows, clock, preprocessed.registration)
        opened.start()
        if opened.rgb is None and tapped is not None and tapped.t_next_us is None:
            raise RecordingError("holds no events", path=options.events, remedy="record it again")
        feed = attached.listen_to_frames(
            _make_feed(options, manifest, opened, tapped, clock, supervisor, note)
        )
        windows.end_us = tapped.t_next_us if tapped is not None and opened.rgb is None else None
        pipeline = _make_pipeline(options, manifest, feed, packer, engine, attached, clock, supervisor)
        engine_name = "no engine" if engine is None else engine.name
        pipeline.report.count_filtered = preprocessed.count_dropped
        states = CameraStates(pipeline.report, opened.rgb, source)
        attached.begin(pipeline.report, engine_name, states)
        with realtime_interpreter(), _stopped_by_signals(pipeline.stop):
            report = pipeline.run()
        opened.close()
        attached.end()
        report.cameras = opened.as_dict()
        report.engine_retries = 0 if engine is None else engine.retries
        report.warnings += [*opened.warnings(), *attached.warnings()]
    for warning in report.warnings:
        note(warning)
    is_recorded = opened.reader is not None and opened.rgb is not None
    if is_recorded and 0 < report.pairs.packed == report.pairs.without_events:
        note("no frame falls into the event recording: all pairs are RGB alone; choose another --sync")
    if bundle is not None and not report.predictions:
        note(_why_silent(manifest, report))
    if options.summary is not None:
        said = {"model": manifest.name, "engine": engine_name, **report.as_dict(), **attached.summary()}
        write_summary(options.summary, said)
    return report


def _check(options: RunOptions) -> None:
    if options.events == NONE and options.rgb == NONE:
        raise InputError("no camera was given", remedy="give --events, --rgb, or both")
    if options.rate_hz is not None and options.rgb != NONE:
        raise InputError("--rate is for events alone: with --rgb, frames tell when", remedy="leave one out")
    if options.rgb == NONE and options.sync.mode not in ("auto", "timestamps"):
        raise InputError(f"--sync {options.sync.mode} needs an RGB camera", remedy="give --rgb")
    if options.decide is not None and options.rate_hz is not None:
        spacing_ms = float(1000 / options.rate_hz)
        if spacing_ms >= options.decide.gap_ms:
            raise InputError(
                f"windows {spacing_ms:g} ms apart all lie beyond a gap of {options.decide.gap_ms:g} ms",
                remedy=f"add --decide gap_ms={3 * spacing_ms:g}",
            )


def _note_weights(bundle: Bundle, note: Callable[[str], None]) -> None:
    if not bundle.manifest.weights.trained:
        note(f"the weights of {bundle.manifest.name} are random: its labels mean nothing")


def _attach(
    options: RunOptions,
    bundle: Bundle | None,
    stream: EventStream | None,
    closing: contextlib.ExitStack,
    note: Callable[[str], None],
) -> RunServices:
    """What runs beside the pipeline; the recorder listens before the first event is asked for."""
    model = None if bundle is None else {"name": bundle.manifest.name, "path": str(options.model)}
    run = RunFacts(model, options.events, options.rgb, options.pace)
    attached = RunServices(options.attach, run, note)
    closing.callback(attached.end)
    attached.open_recorder(None if stream is None else (stream.width, stream.height))
    return attached


def _make_feed(
    options: RunOptions,
    manifest: Manifest,
    opened: RunSources,
    stream: EventStream | None,
    clock: Clock,
    supervisor: Supervisor,
    note: Callable[[str], None],
) -> RunInputs:
    duration_us = None if options.duration_s is None else round(options.duration_s * 1e6)
    rate_hz = options.rate_hz or Fraction(1_000_000, manifest.event.window_us)
    clip_pairs = manifest.clip_length * manifest.stride
    return choose_feed(
        opened, stream, options.sync, rate_hz, clip_pairs, duration_us, clock, supervisor.stop, note
    )


def _open_engine(
    options: RunOptions, bundle: Bundle, closing: contextlib.ExitStack, note: Callable[[str], None]
) -> RetryingEngine:
    _note_weights(bundle, note)
    choice = open_engine(bundle, options.backend, options.engine)
    closing.callback(choice.engine.close)
    note(f"{bundle.manifest.name} on {choice.engine.name}")
    for reason in choice.passed_over:
        note(f"passed over {reason}")
    choice.engine.warm_up()
    return RetryingEngine(choice.engine, note)


def _make_packer(
    manifest: Manifest,
    stream: EventStream | None,
    windows: WindowRule,
    clock: Clock,
    registration: RegistrationMap | None,
) -> Packer:
    """A packer with its kernels loaded, before a live camera begins to deliver."""
    from velora_edge.preprocessing.packer import Packer

    packer = Packer(manifest, stream, windows, clock, registration)
    packer.warm_up()
    return packer


def _make_pipeline(
    options: RunOptions,
    manifest: Manifest,
    feed: RunInputs,
    packer: Packer,
    engine: RetryingEngine | None,
    attached: RunServices,
    clock: Clock,
    supervisor: Supervisor,
) -> Pipeline:
    from velora_runtime.inference.decision import Decider
    from velora_runtime.inference.recogniser import Recogniser
    from velora_runtime.pipeline.pipeline import Pipeline

    recogniser = NullRecogniser() if engine is None else Recogniser(manifest, engine, clock)
    sinks = [*_open_sinks(options, manifest, feed.rgb, has_events=packer.has_events), *attached.sinks()]
    decider = None if options.decide is None else Decider(manifest.labels, options.decide)
    return Pipeline(manifest, feed, packer, recogniser, sinks, options.pace, clock, supervisor, decider)


def _open_sinks(
    options: RunOptions, manifest: Manifest, rgb: RGBSource | None, *, has_events: bool
) -> list[Sink]:
    context = SinkContext(
        manifest,
        None if rgb is None else (rgb.height, rgb.width),
        manifest.image_size if has_events else None,
        decides=options.decide is not None,
    )
    sinks: list[Sink] = []
    try:
        for name, target in options.outputs:
            sinks.append(open_sink(name, target, context))
    except BaseException:
        for sink in sinks:
            sink.close()
        raise
    return sinks


@contextlib.contextmanager
def _stopped_by_signals(stop: Callable[[], None]) -> Iterator[None]:
    """SIGINT and SIGTERM call `stop`; a second one has its usual effect. Only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    numbers = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {number: signal.getsignal(number) for number in numbers}

    def handle(number: int, frame: object) -> None:
        signal.signal(number, before[number])
        stop()

    for number in numbers:
        signal.signal(number, handle)
    try:
        yield
    finally:
        for number in numbers:
            signal.signal(number, before[number])


def _why_silent(manifest: Manifest, report: RunReport) -> str:
    needed = (manifest.clip_length - 1) * manifest.stride + 1
    stride = f" {manifest.stride} apart" if manifest.stride > 1 else ""
    return (
        f"no prediction: a clip is {manifest.clip_length} pairs{stride}, so the first needs {needed} pairs, "
        f"and there were {report.pairs.packed}"
    )


def write_summary(path: str, content: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        part.write_text(json.dumps(content, indent=2) + "\n")
        part.replace(target)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place with --summary"
        ) from error
