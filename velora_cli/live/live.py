"""The commands `velora-live`, which is also `velora live`, and `velora demo`."""

from __future__ import annotations

import re
import sys
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from velora_runtime.cameras.drivers.registry import describe_cameras
from velora_runtime.engines.registry import BACKENDS

from velora_cli.options import (
    HeadedCommand,
    camera_options,
    output_options,
    preprocessing_options,
    read_attach_options,
    read_live_options,
    read_outputs,
    read_preprocessing,
    under,
    watching_options,
)
from velora_edge.console import StrideType, note

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

_camera, _sync, _model = under("Cameras"), under("Synchronisation"), under("Model")


class SensorSize(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """WxH, as (width, height)."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read the size."""
        found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", str(value))
        if found is None or not (int(found[1]) and int(found[2])):
            self.fail(f"expected WIDTHxHEIGHT in pixels, such as 1280x720, got {value!r}", param, ctx)
        return int(found[1]), int(found[2])


class Rate(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """A positive number, kept exact."""

    name = "HZ"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Read the number."""
        try:
            # Digits alone, and few of them: Fraction("1e999999999") would take all memory.
            rate = Fraction(str(value)) if re.fullmatch(r"[0-9./]{1,40}", str(value)) else Fraction(0)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= 1_000_000:
            self.fail(f"expected windows a second, above 0 and up to 1000000, got {value!r}", param, ctx)
        return rate


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
@_camera(
    "--sensor",
    type=SensorSize(),
    metavar="WxH",
    help="Size of the event sensor, where the file does not tell.",
)
@camera_options
@_camera(
    "--pace",
    type=click.Choice(["realtime", "max"]),
    default="realtime",
    show_default=True,
    help="realtime: as it was recorded, dropping what comes too fast; max: everything, as fast as it goes.",
)
@_camera(
    "--start",
    type=click.FloatRange(0),
    default=0.0,
    metavar="S",
    help="Recordings: begin S seconds after the first event.",
)
@_camera("--duration", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop after S seconds.")
@_sync(
    "--sync",
    default="auto",
    metavar="HOW",
    help="How RGB frames find their time: auto, timestamps, offset=US (timestamps and US microseconds more), "
    "trigger (edges on the event camera's input), host (live cameras: by arrival).  [default: auto]",
)
@_sync("--trigger-id", type=int, metavar="N", help="Trigger input.  [default: the one with most edges]")
@_sync(
    "--trigger-edge",
    type=click.Choice(["rising", "falling"]),
    default="rising",
    show_default=True,
    help="The edge that stands for a frame.",
)
@_sync("--rate", type=Rate(), help="Windows a second, for events alone.  [default: the model's]")
@preprocessing_options
@_model(
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help=f"auto, {', '.join(backend.name for backend in BACKENDS)}.",
)
@_model(
    "--device",
    type=click.Choice(["auto", "cpu", "cuda", "gpu", "npu"]),
    default="auto",
    show_default=True,
    help="Where the model runs: cuda is an NVIDIA GPU; gpu and npu are Intel's, by openvino. "
    "One that is asked for is never replaced by another.",
)
@_model(
    "--threads", type=click.IntRange(0), default=0, metavar="N", help="For a model on the CPU; 0: all cores."
)
@_model(
    "--stride",
    type=StrideType(),
    metavar="N",
    help="Pairs from one of a clip's pairs to the next; auto: so many that a clip covers the time that it "
    "covered in training, at the cameras' rate.  [default: the model's]",
)
@output_options
@watching_options
def command(**given: Any) -> None:
    """Recognise what the cameras, or recordings of them, show.

    MODEL is a bundle's folder (NAME.velora), or demo. RECORDING is a folder that --record wrote: both
    cameras at once. Without any source the attached cameras are taken, as velora cameras lists them.
    """
    from velora_runtime.app.session import run_session

    report = run_session(_options(given), note)
    for line in report.lines():
        click.echo(line)


def agree(question: str) -> bool:
    """What the user answers at the terminal; no, where there is none."""
    return sys.stdin.isatty() and click.confirm(question, err=True)


def _attached_cameras() -> dict[str, str]:
    """The cameras of a run that names none."""
    from velora_runtime.cameras.drivers.registry import choose_attached, list_attached

    events, rgb = choose_attached(list_attached(), note)
    return {"events": events, "rgb": rgb}


def _options(given: dict[str, Any]) -> RunOptions:
    from velora_runtime.app.session import RunOptions
    from velora_runtime.engines.base import EngineOptions
    from velora_runtime.inference.decision import read_decision_settings

    from velora_edge.preprocessing.registry import find_sources
    from velora_edge.preprocessing.sources import NONE
    from velora_edge.preprocessing.sync import SyncOptions

    found = find_sources(given["model"], given["recording"], given["events"], given["rgb"], note, agree)
    if given["events"] is None and given["rgb"] is None and found.events == found.rgb == NONE:
        found = replace(found, **_attached_cameras())
    return RunOptions(
        model=found.model,
        events=found.events,
        rgb=found.rgb,
        sync=SyncOptions(given["sync"], given["trigger_id"], given["trigger_edge"]),
        pace=given["pace"],
        backend=given["backend"],
        engine=EngineOptions(given["device"], given["threads"]),
        outputs=read_outputs(given),
        duration_s=given["duration"],
        rate_hz=given["rate"],
        stride=given["stride"],
        sensor=given["sensor"],
        summary=given["summary"],
        live=read_live_options(given),
        start_s=given["start"],
        preprocessing=read_preprocessing(given),
        attach=read_attach_options(given),
        decide=read_decision_settings(given["decide"]),
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
