"""Session of one run: opens model, sources and sinks in stages, runs them, writes the report."""

from __future__ import annotations

import contextlib
import json
from dataclasses import dataclass, field, replace
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from velora_edge.clock import SystemClock
from velora_edge.errors import Address, InputError, RecordingError
from velora_edge.events.filters.event_preprocessing import EventPreprocessing
from velora_edge.files import replace_file
from velora_edge.preprocessing.registry import recorded_rate_hz
from velora_edge.preprocessing.sources import NONE
from velora_edge.preprocessing.sync import SyncOptions
from velora_edge.preprocessing.windows import LONGEST, Steps, WindowRule
from velora_runtime.app.run_services import AttachOptions, RunFacts, RunServices
from velora_runtime.app.run_sources import (
    LiveOptions,
    begin_at,
    choose_inputs,
    open_sources,
    preprocess_events,
)
from velora_runtime.cameras.camera import CameraStates
from velora_runtime.cameras.camera_settings import read_camera_settings
from velora_runtime.cameras.drivers.registry import EMULATE, is_live, live_rate_hz
from velora_runtime.cameras.feeds import LiveSetup
from velora_runtime.engines.base import EngineOptions
from velora_runtime.inference.recogniser import NullRecogniser
from velora_runtime.inference.run_model import RunModel, why_silent
from velora_runtime.pipeline.supervisor import (
    ServiceManager,
    Supervisor,
    realtime_interpreter,
    stopped_by_signals,
)
from velora_runtime.report import CameraMeter
from velora_runtime.sinks.base import SinkContext, open_sink

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Sequence

    from velora_edge.bundle import Manifest
    from velora_edge.clock import Clock
    from velora_edge.preprocessing.packer import Packer
    from velora_edge.preprocessing.sources import RGBSource
    from velora_runtime.app.run_sources import Begun, RunEvents, RunSources
    from velora_runtime.inference.decision import DecisionSettings
    from velora_runtime.pipeline.frame_source import Pace, RunInputs
    from velora_runtime.pipeline.pipeline import Pipeline
    from velora_runtime.report import RunReport
    from velora_runtime.sinks.base import Sink


MOST_PROVISIONAL_HZ = 1000
"""More would be threads waking each other, and no new events."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of a run; `velora-live --help` explains each.

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
        stride: pairs from one of a clip's pairs to the next, `auto`, or None: the model's own.
        sensor: width and height, for event files that do not tell.
        summary: where the report goes as JSON, or None.
        live: of live cameras.
        start_s: how far from the first event of a recording to begin.
        preprocessing: what is done to the events.
        attach: what runs beside the pipeline.
        decide: when actions start and end; None: nobody tells.
        idle_below: events of a window, below which nothing is computed once a clip was still; 0: never.
        provisional_hz: provisional decisions a second, after each pair; None: none.
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
    stride: int | Literal["auto"] | None = None
    sensor: tuple[int, int] | None = None
    summary: str | None = None
    live: LiveOptions = field(default_factory=LiveOptions)
    start_s: float = 0.0
    preprocessing: EventPreprocessing = field(default_factory=EventPreprocessing)
    attach: AttachOptions = field(default_factory=AttachOptions)
    decide: DecisionSettings | None = None
    idle_below: int = 0
    provisional_hz: Fraction | None = None

    def __post_init__(self) -> None:
        """Cameras and brokers are told of without the passwords in their addresses, from here on."""
        object.__setattr__(self, "events", Address(self.events))
        object.__setattr__(self, "rgb", Address(self.rgb))
        object.__setattr__(self, "outputs", tuple((sink, Address(target)) for sink, target in self.outputs))


def run_session(
    options: RunOptions,
    note: Callable[[str], None],
    clock: Clock | None = None,
    *,
    model: RunModel | None = None,
    sinks: Sequence[Sink] = (),
    stop: threading.Event | None = None,
) -> RunReport:
    """Run to the end of the sources, or until SIGINT or SIGTERM.

    Args:
        options: what was asked for.
        note: gets a line for people: choices that were made, and what was odd.
        clock: of all times; the system's own by default.
        model: kept open from run to run, for one run at a time; None: the options' own, closed at the end.
        sinks: besides those of the options; closed at the end.
        stop: ends the run from outside.

    Raises:
        InputError: if the model, a source or an output cannot be used.
        EngineError: if no engine can be had, or if it fails.
    """
    _check(options)
    with contextlib.ExitStack() as closing:
        clock = clock or SystemClock()
        setup = _Setup(options, clock, note, closing, Supervisor(clock, note, ServiceManager(), stop))
        if model is None:
            model = closing.enter_context(RunModel(options.model, options.backend, options.engine))
        model.take_stride(options.stride, partial(_find_rate_hz, setup, model.manifest), note)
        sources = _open_sources(setup, model)
        begun = begin_at(sources, options.start_s)
        events = _filter_events(setup, model, sources, begun)
        engine = model.open_engine(note, has_events=options.events != NONE)
        retries = 0 if engine is None else engine.retries
        services = _listen(setup, model, events)
        packer = _make_packer(setup, model, events)
        inputs = services.listen_to_frames(_start(setup, model, sources, begun, events, packer))
        pipeline = _make_pipeline(setup, model, inputs, packer, [*services.sinks(), *sinks])
        meter = CameraMeter(sources.deliveries(), clock, options.attach.perf_s, note)
        setup.supervisor.listen(meter.poll)
        engine_name = "no engine" if engine is None else engine.name
        states = CameraStates(pipeline.report, sources.rgb, sources.stream)
        services.begin(pipeline.report, engine_name, states, pipeline.stop)
        with realtime_interpreter(), stopped_by_signals(pipeline.stop):
            report = pipeline.run()
        report.perf = meter.whole()
        events.close()
        sources.close()
        services.end()
        report.cameras = sources.as_dict()
        report.engine_retries = 0 if engine is None else engine.retries - retries
        report.warnings += [*sources.warnings(), *services.warnings()]
    for warning in report.warnings:
        note(warning)
    _note_empty(model, sources, report, note)
    if options.summary is not None:
        said = {"model": model.manifest.name, "engine": engine_name, **report.as_dict(), **services.summary()}
        write_summary(options.summary, said)
    return report


@dataclass(frozen=True, slots=True)
class _Setup:
    """Arguments of every stage of a session."""

    options: RunOptions
    clock: Clock
    note: Callable[[str], None]
    closing: contextlib.ExitStack
    supervisor: Supervisor


def _find_rate_hz(setup: _Setup, manifest: Manifest) -> float | None:
    """Pairs a second of the run, before it begins; None where nobody can tell."""
    options = setup.options
    if options.rgb == NONE:
        return float(options.rate_hz or Fraction(1_000_000, manifest.event.window_us))
    if not is_live(options.rgb):
        return recorded_rate_hz(options.rgb)
    stop, settings = setup.supervisor.stop, read_camera_settings(options.live.settings)
    return live_rate_hz(options.rgb, LiveSetup(setup.clock, stop, setup.note, settings=settings))


def _open_sources(setup: _Setup, model: RunModel) -> RunSources:
    options = setup.options
    if is_live(options.events, options.rgb):
        model.open_engine(
            setup.note, has_events=options.events != NONE
        )  # first: a camera would not wait for it
    sources = open_sources(
        options.events,
        options.rgb,
        options.sensor,
        options.pace,
        options.live,
        setup.clock,
        setup.supervisor.stop,
        setup.note,
    )
    setup.closing.callback(sources.close)
    return sources


def _filter_events(setup: _Setup, model: RunModel, sources: RunSources, begun: Begun) -> RunEvents:
    is_camera = sources.live_events is not None
    if begun.stream is not None:
        setup.closing.callback(begun.stream.close)
    return preprocess_events(begun.stream, setup.options.preprocessing, model.manifest, is_live=is_camera)


def _listen(setup: _Setup, model: RunModel, events: RunEvents) -> RunServices:
    """Open the services beside the pipeline; the recorder listens before the first event is taken."""
    options, bundle, stream = setup.options, model.bundle, events.stream
    about = None if bundle is None else {"name": bundle.manifest.name, "path": str(options.model)}
    run = RunFacts(about, options.events, options.rgb, options.pace)
    services = RunServices(options.attach, run, setup.note)
    setup.closing.callback(services.end)
    services.open_recorder(None if stream is None else (stream.width, stream.height))
    if stream is not None:
        services.listen_to_events(stream)
    return services


def _make_packer(setup: _Setup, model: RunModel, events: RunEvents) -> Packer:
    """Make a packer and load its kernels, before a live camera begins to deliver."""
    from velora_edge.preprocessing.packer import Packer
    from velora_runtime.pipeline.provisional import ProvisionalPacker

    kind = Packer if setup.options.provisional_hz is None else ProvisionalPacker
    windows = WindowRule(model.manifest.event.window_us)
    packer = kind(model.manifest, events.stream, windows, setup.clock, events.registration)
    packer.warm_up()
    return packer


def _start(
    setup: _Setup, model: RunModel, sources: RunSources, begun: Begun, events: RunEvents, packer: Packer
) -> RunInputs:
    """Start the cameras, and choose when pairs are made."""
    options, manifest = setup.options, model.manifest
    sources.start()
    if sources.rgb is None and events.stream is not None:
        first_us = events.stream.t_next_us
        if first_us is None:
            raise RecordingError("holds no events", path=options.events, remedy="record it again")
        packer.begin_at(first_us)
    inputs = choose_inputs(
        sources,
        begun,
        events,
        options.sync,
        options.rate_hz or Fraction(1_000_000, manifest.event.window_us),
        manifest.clip_length * manifest.stride,
        None if options.duration_s is None else round(options.duration_s * 1e6),
        setup.clock,
        setup.supervisor.stop,
        setup.note,
    )
    return _with_steps(inputs, setup, model, sources, packer)


def _with_steps(
    inputs: RunInputs, setup: _Setup, model: RunModel, sources: RunSources, packer: Packer
) -> RunInputs:
    """Let the run decide between pairs, where that was asked for."""
    from velora_runtime.pipeline.provisional import LiveSteps, ProvisionalPacker

    rate_hz = setup.options.provisional_hz
    if rate_hz is None or not isinstance(packer, ProvisionalPacker):
        return inputs
    steps = Steps(rate_hz, int(LONGEST * model.manifest.event.window_us))
    live = None
    if inputs.live is not None and sources.live_events is not None:
        live = LiveSteps(steps, packer, sources.live_events.stream, setup.clock)
    return replace(inputs, steps=steps, live_steps=live)


def _note_empty(model: RunModel, sources: RunSources, report: RunReport, note: Callable[[str], None]) -> None:
    """Note why there were no events or no predictions, where that is so."""
    is_recorded = sources.reader is not None and sources.rgb is not None
    if is_recorded and 0 < report.pairs.packed == report.pairs.without_events:
        note("no frame falls into the event recording: all pairs are RGB alone; choose another --sync")
    if model.bundle is not None and not report.predictions:
        note(why_silent(model.manifest, report.pairs.packed))


def _check(options: RunOptions) -> None:
    if options.events == NONE and options.rgb == NONE:
        raise InputError("no camera was given", remedy="give --events, --rgb, or both")
    if options.rate_hz is not None and options.rgb != NONE:
        raise InputError("--rate is for events alone: with --rgb, frames tell when", remedy="leave one out")
    if options.rgb == NONE and options.sync.mode not in ("auto", "timestamps"):
        raise InputError(f"--sync {options.sync.mode} needs an RGB camera", remedy="give --rgb")
    if options.provisional_hz is not None:
        _check_provisional(options)
    if options.decide is not None and options.rate_hz is not None:
        spacing_ms = float(1000 / options.rate_hz)
        if spacing_ms >= options.decide.gap_ms:
            raise InputError(
                f"windows {spacing_ms:g} ms apart all lie beyond a gap of {options.decide.gap_ms:g} ms",
                remedy=f"add --decide gap_ms={3 * spacing_ms:g}",
            )


def _check_provisional(options: RunOptions) -> None:
    if options.provisional_hz is not None and options.provisional_hz > MOST_PROVISIONAL_HZ:
        raise InputError(f"--provisional: at most {MOST_PROVISIONAL_HZ} a second", remedy="ask for fewer")
    if options.events in (NONE, EMULATE):
        raise InputError("--provisional decides on events between pictures", remedy="give --events a camera")
    if options.preprocessing.filters and is_live(options.events):
        raise InputError(
            "--provisional of a live camera has to go back where a picture comes early, and filters cannot",
            remedy="leave --filter out, or the other",
        )


def _make_pipeline(
    setup: _Setup, model: RunModel, inputs: RunInputs, packer: Packer, others: Sequence[Sink]
) -> Pipeline:
    from velora_runtime.inference.decision import Decider
    from velora_runtime.inference.recogniser import PairRecogniser
    from velora_runtime.pipeline.pipeline import Pipeline

    options, manifest, clock, engine = setup.options, model.manifest, setup.clock, model.engine
    recogniser = (
        NullRecogniser()
        if engine is None
        else PairRecogniser(manifest, engine, clock, setup.note, options.idle_below)
    )
    mine = _open_sinks(options, manifest, inputs.rgb, setup.note, has_events=packer.has_events)
    sinks = [*mine, *others]
    decider = None if options.decide is None else Decider(manifest.labels, options.decide)
    return Pipeline(
        manifest, inputs, packer, recogniser, sinks, options.pace, clock, setup.supervisor, decider
    )


def _open_sinks(
    options: RunOptions,
    manifest: Manifest,
    rgb: RGBSource | None,
    note: Callable[[str], None],
    *,
    has_events: bool,
) -> list[Sink]:
    context = SinkContext(
        manifest,
        None if rgb is None else (rgb.height, rgb.width),
        manifest.image_size if has_events else None,
        decides=options.decide is not None,
        note=note,
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


def write_summary(path: str, content: dict[str, Any]) -> None:
    """Write a report as JSON, whole or not at all.

    Raises:
        InputError: if it cannot be written.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        replace_file(target, (json.dumps(content, indent=2) + "\n").encode(), mode=0o644)
    except OSError as error:
        raise InputError(
            f"cannot be written: {error.strerror}", path=path, remedy="choose another place with --summary"
        ) from error
