"""Options that several commands take, by subject: cameras, events, recording and watching."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import Command, add_options

if TYPE_CHECKING:
    from velora_runtime.app.run_services import AttachOptions
    from velora_runtime.app.run_sources import LiveOptions

    from velora_edge.events.filters.event_preprocessing import EventPreprocessing


_CAMERAS = (
    click.option(
        "--event-format",
        type=click.Choice(["EVT2", "EVT2.1", "EVT3"], case_sensitive=False),
        help="Of raw events on tcp:// or - that come without a header; with --sensor.",
    ),
    click.option(
        "--event-rate-cap",
        metavar="N",
        help="Let through so many events a second at most, such as 5M; the rest is dropped and counted.",
    ),
    click.option(
        "--cameras",
        metavar="FILE.yaml",
        help="Settings of live cameras: biases, regions, rate control, picture size; docs/guides/cameras.md.",
    ),
    click.option(
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


_EVENTS = (
    click.option(
        "--calibration",
        metavar="FILE",
        help="The event camera's: OpenCV, ROS or Kalibr YAML, DSEC's cam_to_cam.yaml or rectify_map.h5, or a "
        "homography. FILE#cam1:cam0 names the event camera and the one onto whose picture it is laid.",
    ),
    click.option(
        "--depth",
        "depth_m",
        type=click.FloatRange(0, min_open=True),
        metavar="M",
        help="How far the scene is, where a calibration has two cameras.  [default: far]",
    ),
    click.option(
        "--hot-pixels",
        metavar="FILE",
        help="Pixels to ignore (velora info RECORDING --hot-pixels FILE finds them).",
    ),
    click.option(
        "--flip",
        type=click.Choice(["horizontal", "vertical", "both"]),
        help="Mirror the events, after the calibration.",
    ),
    click.option(
        "--rotate",
        type=click.Choice(["0", "90", "180", "270"]),
        default="0",
        help="Turn the events clockwise, after --flip.",
    ),
    click.option(
        "--filter",
        "filters",
        multiple=True,
        metavar="NAME[=US]",
        help="background (drops events without a neighbour within 5000 us), or refractory (drops those of a "
        "pixel that fired within 1000 us). May be given again.",
    ),
)


rate_cap_option = click.option(
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
    click.option(
        "--recordings",
        default="recordings",
        show_default=True,
        metavar="DIR",
        help="Where recordings and clips go that are begun by a key (r, s) or on the page.",
    ),
    click.option(
        "--keep",
        type=click.FloatRange(0, 3600),
        metavar="S",
        help="Seconds that a clip reaches back; 0: no clips.  [default: 10 with --record or --serve]",
    ),
    click.option(
        "--serve",
        metavar="HOST:PORT",
        help="A page to watch and record, /metrics and /healthz. 127.0.0.1:8080 for this machine, "
        "0.0.0.0:8080 for others, which then need a token.",
    ),
    click.option(
        "--token",
        envvar="VELORA_TOKEN",
        metavar="TEXT",
        help="The token to ask for, also $VELORA_TOKEN; none: ask for none.  "
        "[default: a random one, but none on 127.0.0.1]",
    ),
)
_OUTPUTS = (
    click.option(
        "--publish", metavar="URL", help="Publish each prediction: mqtt://[USER@]HOST[:PORT]/TOPIC."
    ),
    click.option(
        "--rerun",
        metavar="TARGET",
        help="Show the run in Rerun: spawn, rerun+http://HOST:9876/proxy, or FILE.rrd; 10 pairs a second.",
    ),
)
_RECORD = click.option(
    "--record",
    metavar="DIR",
    help="Record both cameras and the predictions to a new folder; velora-live MODEL DIR replays it.",
)


def recording_options(command: Command) -> Command:
    """A command with --recordings, --keep, --serve and --token."""
    return add_options(command, _WATCHING)


def watching_options(command: Command) -> Command:
    """A command with --record, those of `recording_options`, --publish and --rerun."""
    return add_options(command, (_RECORD, *_WATCHING, *_OUTPUTS))


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
    )


def read_outputs(given: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Sinks and their targets."""
    return tuple((sink, given[sink]) for sink in ("publish", "rerun") if given[sink] is not None)
