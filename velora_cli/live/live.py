"""The commands `velora-live`, which is also `velora live`, and `velora demo`."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from velora_runtime.cameras.drivers.registry import describe_cameras
from velora_runtime.sinks.base import STANDARD_OUTPUT

from velora_cli.options import (
    camera_options,
    duration_option,
    model_options,
    output_options,
    preprocessing_options,
    read_attach_options,
    read_live_options,
    read_outputs,
    read_run_options,
    sensor_option,
    start_option,
    sync_options,
    watching_options,
    without_sources_of_a_place,
)
from velora_edge.console import HeadedCommand, note, under

if TYPE_CHECKING:
    from velora_runtime.app.session import RunOptions


EXAMPLES = """\b
Examples, in a checkout:
  velora-live demo
  D=velora_edge/assets
  velora-live demo --events $D/demo.raw --rgb none --rate 30
  velora-live demo --events $D/demo.raw --rgb $D/demo.mp4 --sync trigger
  velora-live demo --rgb $D/demo.mp4 --pace max --out predictions.jsonl
  velora-live demo --events $D/demo.raw --rgb $D/demo.mp4 --video overlay.mp4 --summary run.json
  velora-live demo --events $D/demo.raw --rgb $D/demo.mp4 --record today --serve 127.0.0.1:8080
  velora-live demo today
  velora-live demo --events neuromorphic:// --rgb /dev/video0

A frame folder holds images and timestamps.txt: 'TIME' or 'NAME TIME' a line, in microseconds.
"""

_camera = under("Cameras")


@click.command(cls=HeadedCommand, epilog=EXAMPLES, context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("model")
@click.argument("recording", required=False)
@_camera(
    "--events",
    metavar="SRC",
    help=f"Event recording, {describe_cameras('events')}, emulate (made of the RGB pictures), or none.  "
    "[default: the attached one, or none beside --rgb]",
)
@_camera(
    "--rgb",
    metavar="SRC",
    help=f"Video file, frame folder, {describe_cameras('rgb')}, or none.  "
    "[default: the attached one, or none beside --events]",
)
@sensor_option
@camera_options
@_camera(
    "--pace",
    type=click.Choice(["realtime", "max"]),
    default="realtime",
    show_default=True,
    help="realtime: as it was recorded, dropping what comes too fast; max: everything, as fast as it goes.",
)
@start_option
@duration_option
@sync_options
@preprocessing_options
@model_options(threads=0)
@output_options
@watching_options
def command(**given: Any) -> None:
    """Recognise what the cameras, or recordings of them, show.

    MODEL is a bundle's folder (NAME.velora), or demo. RECORDING is a folder that --record wrote: both
    cameras at once. Without any source the attached cameras are taken, as velora cameras lists them.
    """
    from velora_runtime.app.session import run_session

    options = _options(given)
    report = run_session(options, note)
    for line in report.lines():
        click.echo(line, err=("jsonl", STANDARD_OUTPUT) in options.outputs)


def agree(question: str) -> bool:
    """What the user answers at the terminal; no, where there is none."""
    return sys.stdin.isatty() and click.confirm(question, err=True)


def _options(given: dict[str, Any]) -> RunOptions:
    from velora_runtime.cameras.drivers.registry import find_run_sources

    from velora_edge.preprocessing.folder import is_recording

    model = given["model"] if is_recording(given["model"]) else None
    given = without_sources_of_a_place(given, given["recording"], model)
    found = find_run_sources(given["model"], given["recording"], given["events"], given["rgb"], note, agree)
    return replace(
        read_run_options({**given, "model": found.model}),
        events=found.events,
        rgb=found.rgb,
        pace=given["pace"],
        outputs=read_outputs(given),
        summary=given["summary"],
        live=read_live_options(given),
        attach=read_attach_options(given),
    )


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--out-dir",
    default="runs/demo",
    show_default=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Where predictions.jsonl, overlay.mp4 and summary.json go.",
)
@click.option(
    "--pace",
    type=click.Choice(["realtime", "max"]),
    default="max",
    show_default=True,
    help="realtime: as it was recorded; max: as fast as it goes.",
)
def demo(out_dir: Path, pace: str) -> None:
    """Replay the packaged recording through the packaged model.

    It is the path that live cameras take: events and frames are paired by the camera's triggers, packed,
    recognised, and written as JSON lines and as a video.
    """
    from velora_runtime.app.session import RunOptions, run_session

    from velora_edge.bundle import find_model

    assets = find_model("demo").parent
    overlay, predictions = out_dir / "overlay.mp4", out_dir / "predictions.jsonl"
    options = RunOptions(
        model="demo",
        events=str(assets / "demo.raw"),
        rgb=str(assets / "demo.mp4"),
        pace="realtime" if pace == "realtime" else "max",
        outputs=(("terminal", ""), ("jsonl", str(predictions)), ("video", str(overlay))),
        summary=str(out_dir / "summary.json"),
    )
    report = run_session(options, note)
    for line in report.lines():
        click.echo(line)
    click.echo(f"\nwritten  {predictions}  {overlay}  {out_dir / 'summary.json'}")
    click.echo(
        "next     velora-live demo --events YOUR.raw --rgb YOUR.mp4   (or --rgb none; velora-live --help)"
    )
