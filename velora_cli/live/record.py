"""`velora record`: both cameras to a folder, without a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from velora_cli.options import (
    camera_options,
    read_attach_options,
    read_live_options,
    recording_options,
    without_sources_of_a_place,
)
from velora_edge.console import HeadedCommand, under

if TYPE_CHECKING:
    from velora_runtime.app.session import RunOptions

EXAMPLES = """\b
Examples, in a checkout:
  D=velora_edge/assets
  velora record today --events $D/demo.raw --rgb $D/demo.mp4 --sync trigger --pace max
  velora-live demo today
  velora record door --events tcp://camera:7777 --rgb /dev/video0
  velora record desk --rgb /dev/video0 --duration 60 --serve 127.0.0.1:8080
"""

_camera, _sync = under("Cameras"), under("Synchronisation")


@click.command(cls=HeadedCommand, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("folder", metavar="DIR")
@_camera("--events", metavar="SRC", help="Event source, as for velora live, or none.")
@_camera("--rgb", metavar="SRC", help="RGB source, likewise.")
@_camera("--sensor", metavar="WxH", help="Size of the event sensor, where the source does not tell.")
@camera_options
@_camera(
    "--pace",
    type=click.Choice(["realtime", "max"]),
    default="realtime",
    show_default=True,
    help="For files. realtime: as they were recorded; max: as fast as it goes, and all of it.",
)
@_camera("--duration", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop after S seconds.")
@_sync(
    "--sync",
    default="auto",
    metavar="HOW",
    help="How RGB frames find their time, as for velora live.  [default: auto]",
)
@recording_options
def command(**given: Any) -> None:
    """Record cameras to DIR, a new folder: raw events, video, times, triggers.

    Ctrl-C ends it. The folder can be replayed however it ended: velora-live MODEL DIR.
    """
    from velora_runtime.app.session import run_session

    from velora_edge.console import note

    for line in run_session(_options(given), note).perf:
        note(line)


def _options(given: dict[str, Any]) -> RunOptions:
    from velora_runtime.app.session import RunOptions

    from velora_cli.recordings.info import parse_sensor
    from velora_edge.preprocessing.sync import SyncOptions

    given = without_sources_of_a_place(given)
    return RunOptions(
        model=None,
        events=given["events"] or "none",
        rgb=given["rgb"] or "none",
        sync=SyncOptions(given["sync"]),
        pace=given["pace"],
        outputs=(),
        duration_s=given["duration"],
        sensor=parse_sensor(given["sensor"]),
        live=read_live_options(given),
        attach=read_attach_options({**given, "record": given["folder"]}),
    )
