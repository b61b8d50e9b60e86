"""`velora record`: both cameras to a folder, or takes of one class to a set, without a model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
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
from velora_edge.errors import InputError, printable

if TYPE_CHECKING:
    from velora_runtime.app.run_services import AttachOptions
    from velora_runtime.app.session import RunOptions

EXAMPLES = """\b
Examples, in a checkout:
  D=velora_edge/assets
  velora record today --events $D/demo.raw --rgb $D/demo.mp4 --sync trigger --pace max
  velora-live demo today
  velora record door --events tcp://camera:7777 --rgb /dev/video0
  velora record desk --rgb /dev/video0 --duration 60 --serve 127.0.0.1:8080
  velora record myset --label wave --takes 10 --seconds 4 --rgb /dev/video0
  velora record day1 --labels wave,rest --rgb /dev/video0
"""

_camera, _sync, _label = under("Cameras"), under("Synchronisation"), under("Labels")


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
@_label(
    "--label",
    metavar="NAME",
    help="Record takes of this class: DIR is a set, and each take a folder in DIR/NAME. Each begins after a "
    "countdown with the terminal's bell; t, or the page, sets a take aside and records it again.",
)
@_label("--takes", type=click.IntRange(1, 10_000), metavar="N", help="How many.  [default: 10]")
@_label(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Length of each.  [default: 4]"
)
@_label("--countdown", type=click.IntRange(0, 3600), metavar="S", help="Seconds before each.  [default: 3]")
@_label(
    "--labels",
    metavar="A,B,...",
    help="Mark what is being recorded: keys 1 to 9, or the page, begin and end a segment of a class, which "
    "is in the folder's segments.csv once it has ended.",
)
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
        attach=_attach_options(given),
    )


def _attach_options(given: dict[str, Any]) -> AttachOptions:
    """A recording that begins with the run, or takes of one class.

    Raises:
        InputError: if options do not go together, or a label can be no folder's name.
    """
    from velora_runtime.recording.recorder import TakePlan

    label, takes = given["label"], ("takes", "seconds", "countdown")
    labels = tuple(dict.fromkeys(name.strip() for name in (given["labels"] or "").split(",") if name.strip()))
    if label is None:
        if alone := [f"--{name}" for name in takes if given[name] is not None]:
            raise InputError(f"{alone[0]} is for takes of one class", remedy="add --label NAME")
        return replace(read_attach_options({**given, "record": given["folder"]}), labels=labels)
    if given["pace"] == "max" or labels:
        other = "--labels" if labels else "--pace max"
        raise InputError(f"{other} does not go with --label", remedy="leave one of them out")
    if (
        not label
        or not label.isprintable()
        or label != label.strip()
        or "/" in label
        or label.startswith(".")
    ):
        raise InputError(
            f"expected --label a class that can be a folder's name, got {printable(label, 40)!r}"
        )
    plan = TakePlan(label, given["takes"] or 10, given["seconds"] or 4.0, _or(given["countdown"], 3))
    where = {"record": None, "recordings": str(Path(given["folder"], label)), "keep": given["keep"] or 0.0}
    return replace(read_attach_options({**given, **where}), takes=plan)


def _or(given: int | None, default: int) -> int:
    return default if given is None else given
