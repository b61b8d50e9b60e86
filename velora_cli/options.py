"""Options that several commands take, by subject: the headings of `velora-live --help`."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
from velora_runtime.engines.registry import BACKENDS
from velora_runtime.sinks.base import SINKS, STANDARD_OUTPUT

from velora_edge.console import Command, Rate, SensorSize, StrideType, add_options, under
from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_runtime.app.run_services import AttachOptions
    from velora_runtime.app.run_sources import LiveOptions
    from velora_runtime.app.session import RunOptions

    from velora_edge.events.filters.event_preprocessing import EventPreprocessing


_camera, _event, _sync, _model = under("Cameras"), under("Events"), under("Synchronisation"), under("Model")
_output, _recording, _watching = under("Output"), under("Recording"), under("Watching")

_CAMERAS = (
    _camera(
        "--event-format",
        type=click.Choice(["EVT2", "EVT2.1", "EVT3"], case_sensitive=False),
        help="Of raw events on tcp:// or - that come without a header; with --sensor.",
    ),
    _camera(
        "--event-rate-cap",
        metavar="N",
        help="Let through so many events a second at most, such as 5M; the rest is dropped and counted.",
    ),
    _camera(
        "--cameras",
        metavar="FILE.yaml",
        help="Settings of live cameras: biases, regions, rate control, picture size; docs/guides/cameras.md.",
    ),
    _camera(
        "--retry",
        type=click.FloatRange(0),
        metavar="S",
        help="Try a lost camera for S seconds, 0: not at all.  [default: for ever]",
    ),
)


def camera_options(command: Command) -> Command:
    """A command with the options of live cameras."""
    return add_options(command, _CAMERAS)


def read_live_options(given: dict[str, Any]) -> LiveOptions:
    """What a user gave, as a value.

    Raises:
        InputError: if the cap is no rate.
    """
    from velora_runtime.app.run_sources import LiveOptions

    from velora_edge.events.filters.filters import read_rate

    cap = given["event_rate_cap"]
    return LiveOptions(
        given["event_format"], given["cameras"], None if cap is None else read_rate(cap), given["retry"]
    )


sensor_option = _camera(
    "--sensor",
    type=SensorSize(),
    metavar="WxH",
    help="Size of the event sensor, where the file does not tell.",
)
start_option = _camera(
    "--start",
    type=click.FloatRange(0),
    default=0.0,
    metavar="S",
    help="Recordings: begin S seconds after the first event.",
)
duration_option = _camera(
    "--duration", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop after S seconds."
)
_SYNC = (
    _sync(
        "--sync",
        default="auto",
        metavar="HOW",
        help="How RGB frames find their time: auto, timestamps, offset=US (timestamps and US microseconds "
        "more), trigger (edges on the event camera's input), host (live cameras: by arrival).  "
        "[default: auto]",
    ),
    _sync("--trigger-id", type=int, metavar="N", help="Trigger input.  [default: the one with most edges]"),
    _sync(
        "--trigger-edge",
        type=click.Choice(["rising", "falling"]),
        default="rising",
        show_default=True,
        help="The edge that stands for a frame.",
    ),
    _sync("--rate", type=Rate(), help="Windows a second, for events alone.  [default: the model's]"),
)
_MODEL = (
    _model(
        "--backend",
        default="auto",
        show_default=True,
        metavar="NAME",
        help=f"auto, {', '.join(backend.name for backend in BACKENDS)}.",
    ),
    _model(
        "--device",
        type=click.Choice(["auto", "cpu", "cuda", "gpu", "npu"]),
        default="auto",
        show_default=True,
        help="Where the model runs: cuda is an NVIDIA GPU; gpu and npu are Intel's, by openvino. "
        "One that is asked for is never replaced by another.",
    ),
    _model(
        "--stride",
        type=StrideType(),
        metavar="N",
        help="Pairs from one of a clip's pairs to the next; auto: so many that a clip covers the time that "
        "it covered in training, at the cameras' rate.  [default: the model's]",
    ),
    _model(
        "--idle-below",
        type=click.IntRange(0),
        default=0,
        metavar="N",
        help="Compute nothing while nothing moves: once all pairs of a clip had fewer than N events, what "
        "was said last stands, until one has more.  [default: always compute]",
    ),
    _model(
        "--provisional",
        "provisional_hz",
        type=Rate(),
        metavar="HZ",
        help="Decide between pairs too, HZ times a second after each, on the newest events; such a "
        "prediction says that it is provisional.  [default: at pairs alone]",
    ),
)


def sync_options(command: Command) -> Command:
    """A command with --sync, --trigger-id, --trigger-edge and --rate."""
    return add_options(command, _SYNC)


def model_options(threads: int) -> Callable[[Command], Command]:
    """What gives a command --backend, --device, --stride and --threads, so many by default."""
    default = {"default": threads, "show_default": bool(threads)}
    option = _model(
        "--threads",
        type=click.IntRange(0),
        metavar="N",
        help="For a model on the CPU; 0: all cores.",
        **default,
    )
    return lambda command: add_options(command, (*_MODEL, option))


def without_sources_of_a_place(given: dict[str, Any], *recordings: str | None) -> dict[str, Any]:
    """What a user gave; sources of `velora.toml` give way to any that the command line names.

    Args:
        given: the options.
        recordings: recordings' folders that the command line may name in other places.
    """
    context, origin = click.get_current_context(silent=True), click.core.ParameterSource
    if context is None:
        return given
    origins = {name: context.get_parameter_source(name) for name in ("events", "rgb")}
    is_told = any(recordings) or origin.COMMANDLINE in origins.values()
    gone = {name: None for name, found in origins.items() if is_told and found is origin.DEFAULT_MAP}
    return {**given, **gone}


def read_run_options(given: dict[str, Any]) -> RunOptions:
    """What a user gave with the options of synchronisation, of the model and of what is done to events."""
    from velora_runtime.app.session import RunOptions
    from velora_runtime.engines.base import EngineOptions
    from velora_runtime.inference.decision import read_decision_settings

    from velora_edge.preprocessing.sync import SyncOptions

    return RunOptions(
        model=given["model"],
        sync=SyncOptions(given["sync"], given["trigger_id"], given["trigger_edge"]),
        backend=given["backend"],
        engine=EngineOptions(given["device"], given["threads"]),
        duration_s=given["duration"],
        rate_hz=given["rate"],
        stride=given["stride"],
        sensor=given["sensor"],
        start_s=given["start"],
        preprocessing=read_preprocessing(given),
        decide=read_decision_settings(given["decide"]),
        idle_below=given["idle_below"],
        provisional_hz=given["provisional_hz"],
    )


_EVENTS = (
    _event(
        "--calibration",
        metavar="FILE",
        help="The event camera's: OpenCV, ROS or Kalibr YAML, DSEC's cam_to_cam.yaml or rectify_map.h5, or a "
        "homography. FILE#cam1:cam0 names the event camera and the one onto whose picture it is laid.",
    ),
    _event(
        "--depth",
        "depth_m",
        type=click.FloatRange(0, min_open=True),
        metavar="M",
        help="How far the scene is, where a calibration has two cameras.  [default: far]",
    ),
    _event(
        "--hot-pixels",
        metavar="FILE",
        help="Pixels to ignore (velora info RECORDING --hot-pixels FILE finds them).",
    ),
    _event(
        "--flip",
        type=click.Choice(["horizontal", "vertical", "both"]),
        help="Mirror the events, after the calibration.",
    ),
    _event(
        "--rotate",
        type=click.Choice(["0", "90", "180", "270"]),
        default="0",
        help="Turn the events clockwise, after --flip.",
    ),
    _event(
        "--filter",
        "filters",
        multiple=True,
        metavar="NAME[=US]",
        help="background (drops events without a neighbour within 5000 us), or refractory (drops those of a "
        "pixel that fired within 1000 us). May be given again.",
    ),
)


rate_cap_option = _event(
    "--event-rate-cap",
    metavar="N",
    help="Events a second at most, such as 5M; the rest is thinned evenly and counted.",
)


def preprocessing_options(command: Command) -> Command:
    """A command with the options of what is done to events, but for the cap on their rate."""
    return add_options(command, _EVENTS)


def read_preprocessing(given: dict[str, Any]) -> EventPreprocessing:
    """What a user gave, as a value."""
    from velora_edge.events.filters.event_preprocessing import EventPreprocessing

    return EventPreprocessing(
        given["calibration"],
        given["depth_m"],
        given["hot_pixels"],
        given["flip"],
        int(given["rotate"]),
        tuple(given["filters"]),
        given["event_rate_cap"],
    )


_WATCHING = (
    _recording(
        "--recordings",
        default="recordings",
        show_default=True,
        metavar="DIR",
        help="Where recordings and clips go that are begun by a key (r, s) or on the page.",
    ),
    _recording(
        "--keep",
        type=click.FloatRange(0, 3600),
        metavar="S",
        help="Seconds that a clip reaches back; 0: no clips.  [default: 10 with --record or --serve]",
    ),
    _watching(
        "--serve",
        metavar="HOST:PORT",
        help="A page to watch and record, /metrics and /healthz. 127.0.0.1:8080 for this machine, "
        "0.0.0.0:8080 for others, which then need a token.",
    ),
    _watching(
        "--token",
        envvar="VELORA_TOKEN",
        metavar="TEXT",
        help="The token to ask for, also $VELORA_TOKEN; none: ask for none.  "
        "[default: a random one, but none on 127.0.0.1]",
    ),
    _watching(
        "--perf",
        type=click.FloatRange(0, min_open=True),
        metavar="S",
        help="Tell every S seconds what live cameras deliver: rates, drops, delay, drift of their clocks.  "
        "[default: at the end]",
    ),
)
decide_option = _output(
    "--decide",
    multiple=True,
    metavar="WHAT",
    help="Tell when actions start and end: default, FILE.yaml, or KEY=VALUE, and again for more. Keys: "
    "smooth_ms, enter, leave, margin, hold_ms, gap_ms, idle; docs/guides/decisions.md.",
)
_OUTPUTS = (
    *(
        _output(option.name, sink.name, metavar=option.metavar, help=option.help)
        for sink in SINKS
        for option in sink.options
    ),
    _output(
        "--sink",
        "sinks",
        multiple=True,
        metavar="NAME=TARGET",
        help="Another place for predictions: ros2://TOPIC, or a sink that an installed plugin brings, as "
        "NAME=TARGET or NAME://TARGET. May be given again.",
    ),
    _output("--summary", metavar="FILE.json", help="Write the run's figures as JSON."),
    _output("--quiet", is_flag=True, help="Do not print predictions."),
    decide_option,
)
_RECORD = _recording(
    "--record",
    metavar="DIR",
    help="Record both cameras and the predictions to a new folder; velora-live MODEL DIR replays it.",
)


def output_options(command: Command) -> Command:
    """A command with the options of sinks, --summary, --quiet and --decide."""
    return add_options(command, _OUTPUTS)


def recording_options(command: Command) -> Command:
    """A command with --recordings, --keep, --serve, --token and --perf."""
    return add_options(command, _WATCHING)


def watching_options(command: Command) -> Command:
    """A command with --record and those of `recording_options`."""
    return add_options(command, (_RECORD, *_WATCHING))


def read_attach_options(given: dict[str, Any]) -> AttachOptions:
    """What a user gave, as a value."""
    from velora_runtime.app.run_services import AttachOptions

    return AttachOptions(
        record=given["record"],
        recordings=given["recordings"],
        keep_s=given["keep"],
        serve=given["serve"],
        token=given["token"],
        keys=given.get("events") != "-",
        perf_s=given["perf"],
    )


def read_outputs(given: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Sinks and their targets.

    Raises:
        InputError: if --sink names none that there is.
        PluginError: if it names one that cannot be used.
    """
    outputs = [(sink.name, given[sink.name]) for sink in SINKS if given.get(sink.name) is not None]
    for text in given["sinks"]:
        name, target = _split_sink(text)
        if SINKS.find(name) is None:
            raise InputError(f"no sink is called {name!r}; there are {SINKS.names()}", place="--sink")
        outputs.append((name, target))
    is_silent = given["quiet"] or given.get("jsonl") == STANDARD_OUTPUT
    return tuple(outputs) if is_silent else (("terminal", ""), *outputs)


def _split_sink(text: str) -> tuple[str, str]:
    """A sink and its target: `udp=127.0.0.1:9000`, or an address, which is the target whole."""
    scheme = re.match(r"([A-Za-z][\w+.-]*)://", text)
    name, _, target = text.partition("=")
    return (scheme[1], text) if scheme else (name, target)
