"""`velora info PATH`: what a recording or a bundle is, and what is wrong with it."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from velora_edge.errors import InputError
from velora_edge.gpu.plan import is_plan, read_plan_version

if TYPE_CHECKING:
    from velora_edge.bundle import Manifest
    from velora_edge.events.base import EventReader


@dataclass(frozen=True, slots=True)
class RecordingFacts:
    """What `velora info --json` prints of a recording; times are None where it holds no events."""

    format: str
    width: int
    height: int
    events: int
    on: int
    off: int
    t_first_us: int | None
    t_last_us: int | None
    duration_us: int | None
    triggers: int
    warnings: list[str]


def read_facts(reader: EventReader) -> RecordingFacts:
    """Read a recording once from its start to its end and tell what is in it."""
    events = on = 0
    first_us: int | None = None
    last_us: int | None = None
    for batch in reader:
        events += len(batch)
        on += int(batch.p.sum())
        low, high = int(batch.t_us.min()), int(batch.t_us.max())
        first_us = low if first_us is None else min(first_us, low)
        last_us = high if last_us is None else max(last_us, high)
    triggers = len(reader.triggers())
    duration_us = None if first_us is None or last_us is None else last_us - first_us
    warnings = list(reader.warnings)
    if not events:
        warnings.append("the recording holds no events")
    return RecordingFacts(
        reader.format, reader.width, reader.height, events, on, events - on, first_us, last_us,
        duration_us, triggers, warnings,
    )  # fmt: skip


def parse_sensor(text: str | None) -> tuple[int, int] | None:
    """Width and height of `WxH`.

    Raises:
        InputError: if it is not of that form.
    """
    if text is None:
        return None
    width, x, height = text.lower().partition("x")
    if not (x and width.isdigit() and height.isdigit() and int(width) > 0 and int(height) > 0):
        raise InputError(f"--sensor: expected WxH such as 1280x720, got {text!r}")
    return int(width), int(height)


def _recording_rows(facts: RecordingFacts) -> list[tuple[str, str]]:
    rows = [
        ("format", facts.format),
        ("sensor", f"{facts.width}x{facts.height}"),
        ("events", f"{facts.events:,} ({facts.on:,} ON, {facts.off:,} OFF)"),
    ]
    if facts.t_first_us is not None and facts.duration_us is not None:
        rows.append(("time", f"{facts.t_first_us:,} to {facts.t_last_us:,} us"))
        rows.append(("duration", f"{facts.duration_us / 1e6:,.6f} s"))
        if facts.duration_us:
            rows.append(("rate", f"{facts.events / facts.duration_us:,.3f} million events a second"))
    rows.append(("triggers", f"{facts.triggers:,}"))
    rows += [("warning" if facts.warnings else "warnings", text) for text in facts.warnings or ["none"]]
    return rows


def _bundle_rows(manifest: Manifest) -> list[tuple[str, str]]:
    height, width = manifest.image_size
    labels = ", ".join(manifest.labels[:8]) + (", ..." if len(manifest.labels) > 8 else "")
    event = manifest.event
    return [
        ("model", manifest.name),
        ("written by", f"velora-edge {manifest.version}, schema {manifest.schema_version}"),
        ("labels", f"{len(manifest.labels)}: {labels}"),
        ("clip", f"{manifest.clip_length} pairs, stride {manifest.stride}"),
        ("image", f"{width}x{height}, {manifest.tokens} tokens of {manifest.token_size}"),
        ("events as", f"{event.representation}, {event.window_us:,} us, {event.fit}"),
        ("precision", manifest.precision),
        (
            "weights",
            manifest.weights.architecture + ("" if manifest.weights.trained else "; random: untrained"),
        ),
        *((f"parity {name}", str(value)) for name, value in manifest.parity.items()),
        *((f"accuracy {name}", str(value)) for name, value in manifest.accuracy.items()),
        *(
            (f"engine {entry.graph}", f"TensorRT {entry.tensorrt} on {entry.gpu}, built by {entry.origin}")
            for entry in manifest.engines
        ),
        ("files", f"{len(manifest.files)}, all as the manifest says"),
    ]


def _print_rows(rows: list[tuple[str, str]]) -> None:
    wide = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{wide}}  {value}")


@click.command(name="info")
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sensor", metavar="WxH", help="The sensor's size, for a file that does not tell.")
@click.option("--format", "format_name", metavar="NAME", help="The format, for a file without its header.")
def command(path: str, as_json: bool, sensor: str | None, format_name: str | None) -> None:
    """Tell what a recording, a model bundle or a TensorRT engine is, and what is wrong with it."""
    if path == "demo" or (Path(path).is_dir() and (Path(path) / "manifest.json").is_file()):
        from velora_edge.bundle import open_bundle

        manifest = open_bundle(path).manifest
        if as_json:
            click.echo(manifest.model_dump_json(indent=2))
        else:
            _print_rows(_bundle_rows(manifest))
        return
    if is_plan(Path(path)):
        engine = {"format": "TensorRT engine", "tensorrt": read_plan_version(Path(path))}
        if as_json:
            click.echo(json.dumps(engine, indent=2))
        else:
            _print_rows(list(engine.items()))
        return
    from velora_edge.events.registry import open_events

    with open_events(path, format=format_name, sensor=parse_sensor(sensor)) as reader:
        facts = read_facts(reader)
    if as_json:
        click.echo(json.dumps(asdict(facts), indent=2))
    else:
        _print_rows(_recording_rows(facts))
