"""`velora info PATH`: what a recording or a bundle is, and what is wrong with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_cli.recordings.engine_facts import describe_plan, engine_line
from velora_cli.recordings.event_facts import look_options, read_facts, read_look
from velora_edge.errors import InputError
from velora_edge.gpu.plan import is_plan

if TYPE_CHECKING:
    from velora_edge.bundle import Manifest


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


def _bundle_rows(manifest: Manifest, path: Path) -> list[tuple[str, str]]:
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
        *_report_rows(manifest),
        *((f"accuracy {name}", str(value)) for name, value in manifest.accuracy.items()),
        *((f"engine {entry.graph}", engine_line(entry, path)) for entry in manifest.engines),
        ("files", f"{len(manifest.files)}, all as the manifest says"),
    ]


def _report_rows(manifest: Manifest) -> list[tuple[str, str]]:
    """What was measured when the bundle was exported."""
    report = manifest.report
    if report is None:
        return [("parity", "not measured")]
    rows = [
        (
            "parity",
            f"logits within {report.onnx:.2g} of torch's, same label in {report.top1_agreement:.1%} of "
            f"{report.clips} clips ({report.source})",
        )
    ]
    if report.accuracy is not None:
        told = report.accuracy
        rows.append(("told right", f"{told.exported:.1%} of {told.clips} clips, torch {told.torch:.1%}"))
    if report.latency is not None:
        step = report.latency
        fp32 = "" if step.fp32_p50_ms is None else f", fp32 {step.fp32_p50_ms:.1f} ms"
        rows.append(
            (
                "step",
                f"{step.p50_ms:.1f} ms, p99 {step.p99_ms:.1f} ms{fp32}: {step.runtime}, {step.machine}, "
                f"{step.threads} threads",
            )
        )
    if report.calibration is not None:
        ranges = report.calibration
        rows.append(
            (
                "calibrated",
                f"{ranges.layers} layers by {ranges.method} on {ranges.clips} clips ({ranges.source})",
            )
        )
    return [*rows, *(("forced", reason) for reason in report.overridden)]


def _print_schema(context: click.Context, option: click.Parameter, wanted: bool) -> None:
    if wanted:
        from velora_edge.manifest import json_schema

        click.echo(json.dumps(json_schema(), indent=2))
        context.exit()


def _print_rows(rows: list[tuple[str, str]]) -> None:
    wide = max(len(name) for name, _ in rows)
    for name, value in rows:
        click.echo(f"{name:<{wide}}  {value}")


@click.command(name="info")
@click.argument("path")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
@click.option("--sensor", metavar="WxH", help="The sensor's size, for a file that does not tell.")
@click.option("--format", "format_name", metavar="NAME", help="The format, for a file without its header.")
@click.option(
    "--schema",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_print_schema,
    help="Print the JSON Schema of a bundle's manifest, and leave.",
)
@look_options
def command(path: str, as_json: bool, sensor: str | None, format_name: str | None, **look: Any) -> None:
    """Tell what a recording, a model bundle or an engine is, and what is wrong with it."""
    if path == "demo" or (Path(path).is_dir() and (Path(path) / "manifest.json").is_file()):
        from velora_edge.bundle import open_bundle

        bundle = open_bundle(path)
        manifest = bundle.manifest
        if as_json:
            click.echo(manifest.model_dump_json(indent=2))
        else:
            _print_rows(_bundle_rows(manifest, bundle.path))
        return
    from velora_cli.recordings import recording_facts

    if recording_facts.is_recording(path):
        if as_json:
            click.echo(json.dumps(recording_facts.describe(path), indent=2))
        else:
            _print_rows(recording_facts.rows(path))
        return
    if is_plan(Path(path)):
        engine = describe_plan(Path(path))
        if as_json:
            click.echo(json.dumps(engine, indent=2))
        else:
            _print_rows(list(engine.items()))
        return
    from velora_edge.events.registry import open_events

    with open_events(path, format=format_name, sensor=parse_sensor(sensor)) as reader:
        facts = read_facts(reader, read_look(look))
    if as_json:
        click.echo(json.dumps(facts.as_dict(), indent=2))
    else:
        _print_rows(facts.rows())
