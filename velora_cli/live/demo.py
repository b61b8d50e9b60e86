"""`velora demo`: the packaged recording through the packaged model."""

from __future__ import annotations

from pathlib import Path

import click

from velora_cli.live.live import note


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
def command(out_dir: Path, pace: str) -> None:
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
