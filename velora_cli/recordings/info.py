"""`velora info PATH`: facts about a recording, a video, a store of clips, a bundle or an engine."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_cli.recordings.event_facts import look_options, read_facts, read_look
from velora_edge.errors import EngineError, InputError, MissingExtraError, RecordingError
from velora_edge.events.registry import FORMATS, HEAD_BYTES, is_hdf5
from velora_edge.gpu.kinds import RTX, is_plan, read_plan_header
from velora_edge.gpu.matching import describe_target, read_validity
from velora_edge.preprocessing.folder import is_recording, read_recording

if TYPE_CHECKING:
    from velora_edge.bundle import EngineFile, Manifest
    from velora_edge.preprocessing.folder import Recording


def engine_line(entry: EngineFile, bundle: Path) -> str:
    """One engine of a bundle: size, target, what its layers compute in, who built it."""
    file = bundle / entry.file
    size = f"{file.stat().st_size / 1e6:.1f} MB" if file.is_file() else "the file is missing"
    layers = "" if entry.compiled is None else f"; {entry.compiled.describe()}"
    return f"{size}, {describe_target(entry)}{layers}; built by {entry.origin}"


def describe_plan(path: Path) -> dict[str, str]:
    """What an engine file says of itself, and, of TensorRT for RTX, what the library here says of it."""
    kind, version = read_plan_header(path)
    facts = {"format": f"{kind.title} engine", "version": version}
    if kind is RTX:
        try:
            facts["validity"] = read_validity(path.read_bytes())
        except (EngineError, MissingExtraError) as error:
            facts["validity"] = f"not asked: {error}"
    return facts


def describe(path: str) -> dict[str, Any]:
    """Everything that the folder tells of itself; every value is a plain one.

    Raises:
        RecordingError: if the folder holds no recording, or its times cannot be read.
    """
    recording = read_recording(path)
    facts, span_s = recording.facts, _span_s(recording)
    return {
        "kind": "recording",
        "started": facts.started,
        "ended": facts.ended,
        "why_ended": facts.why_ended,
        "duration_s": span_s,
        "events": facts.events if recording.events is not None else None,
        "video": facts.video if recording.video is not None else None,
        "frames": len(recording.times_us()),
        "triggers": len(recording.triggers()),
        "model": facts.model,
        "dropped": facts.dropped,
        "bytes": sum(file.stat().st_size for file in recording.folder.iterdir()),
        "warnings": list(recording.warnings),
    }


def recording_rows(path: str) -> list[tuple[str, str]]:
    """The same for people."""
    said = describe(path)
    events, video, model = said["events"], said["video"], said["model"]
    lost = ", ".join(f"{n:,} {what}" for what, n in said["dropped"].items() if n)
    return [
        ("kind", "recording of both cameras" if events and video else "recording of one camera"),
        ("started", said["started"]),
        ("ended", f"{said['ended']}, {said['why_ended']}" if said["ended"] else "not properly"),
        ("duration", f"{said['duration_s']:.3f} s, {said['bytes'] / 1e6:.1f} MB"),
        (
            "events",
            "none" if not events else f"{events.get('encoding', '?')} from {events.get('source', '?')}",
        ),
        (
            "video",
            "none"
            if not video
            else f"{video.get('width', '?')}x{video.get('height', '?')}, {said['frames']:,} frames, "
            f"from {video.get('source', '?')}",
        ),
        ("triggers", f"{said['triggers']:,}"),
        ("model", "none" if model is None else f"{model.get('name', '?')} ({model.get('path', '?')})"),
        ("lost", lost or "nothing"),
        *(("warning", warning) for warning in said["warnings"]),
    ]


def _span_s(recording: Recording) -> float:
    """By the frames' times where there are any; else as noted at the end, or, after a crash, by events."""
    times_us = recording.times_us()
    if len(times_us):
        return float(times_us[-1] - times_us[0]) / 1e6
    first_us, last_us = recording.facts.first_us, recording.facts.last_us
    if first_us is not None and last_us is not None:
        return (last_us - first_us) / 1e6
    if recording.events is None:
        return 0.0
    from velora_edge.events.registry import open_events

    with open_events(recording.events) as reader:
        return (read_facts(reader).duration_us or 0) / 1e6


def describe_other(path: Path) -> dict[str, Any] | None:
    """Facts about a video or a store of clips; None for anything else.

    Raises:
        VeloraError: if it is damaged.
    """
    if not path.is_file():
        return None
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if is_hdf5(head, path):
        return _describe_store(path)
    return None if FORMATS.claiming(head, path) is not None else _describe_video(path)


def _describe_store(path: Path) -> dict[str, Any] | None:
    from velora_edge.data.clips.store import ClipStore, Hdf5File, is_store, stored_spec

    opener = Hdf5File(path)
    try:
        if not is_store(opener()):
            return None
    finally:
        opener.close()
    store = ClipStore(path, stored_spec(path))
    height, width = store.spec.image_size
    splits = Counter(item.split or "-" for item in store.items)
    facts = {
        "kind": "store of clips",
        "recordings": len(store),
        "pairs": sum(store.pairs(index) for index in range(len(store))),
        "classes": len(store.labels),
        "labels": list(store.labels),
        "cameras": list(store.cameras),
        "image_size": [height, width],
        "events_as": store.spec.event.model_dump(mode="json"),
        "splits": dict(splits),
        "source": store.source,
        "bytes": path.stat().st_size,
    }
    store.close()
    return facts


def _describe_video(path: Path) -> dict[str, Any] | None:
    from velora_edge.preprocessing.video_file import VideoFile

    try:
        video = VideoFile(str(path))
    except RecordingError:
        return None
    times_us = video.times_us()
    span_us = int(times_us[-1] - times_us[0])
    return {
        "kind": "video",
        "width": video.width,
        "height": video.height,
        "frames": len(times_us),
        "duration_us": span_us,
        "rate_hz": round((len(times_us) - 1) * 1e6 / span_us, 3) if span_us else None,
        "warnings": list(video.warnings),
    }


def other_rows(facts: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts about a video or a store, for people."""
    if facts["kind"] == "video":
        rate = "" if facts["rate_hz"] is None else f", {facts['rate_hz']:g} a second"
        return [
            ("kind", "video"),
            ("size", f"{facts['width']}x{facts['height']}"),
            ("frames", f"{facts['frames']:,}{rate}"),
            ("duration", f"{facts['duration_us'] / 1e6:.3f} s"),
            *(("warning", warning) for warning in facts["warnings"]),
        ]
    labels, event = facts["labels"], facts["events_as"]
    height, width = facts["image_size"]
    return [
        ("kind", f"store of clips, {facts['bytes'] / 1e6:.1f} MB"),
        (
            "recordings",
            f"{facts['recordings']:,}, {facts['pairs']:,} pairs by {' and '.join(facts['cameras'])}",
        ),
        ("labels", f"{len(labels)}: {', '.join(labels[:8])}{', ...' if len(labels) > 8 else ''}"),
        ("splits", ", ".join(f"{name} {count:,}" for name, count in sorted(facts["splits"].items()))),
        ("image", f"{width}x{height}"),
        ("events as", f"{event['representation']}, {event['window_us']:,} us, {event['fit']}"),
        ("source", facts["source"] or "not told"),
    ]


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
        ("clip", f"{manifest.clip_length} pairs, stride {manifest.stride}{_span(manifest)}"),
        ("image", f"{width}x{height}, {manifest.tokens} tokens of {manifest.token_size}"),
        ("events as", f"{event.representation}, {event.window_us:,} us, {event.fit}"),
        ("precision", _precision(manifest)),
        (
            "weights",
            manifest.weights.architecture + ("" if manifest.weights.trained else "; random: untrained"),
        ),
        *_report_rows(manifest),
        *((f"accuracy {name}", str(value)) for name, value in manifest.accuracy.items()),
        *((f"engine {entry.graph}", engine_line(entry, path)) for entry in manifest.engines),
        ("files", f"{len(manifest.files)}, all as the manifest says"),
    ]


def _precision(manifest: Manifest) -> str:
    is_mixed = manifest.precision in ("int8", "fp8")
    return manifest.precision + (f", the other layers {manifest.floats}" if is_mixed else "")


def _span(manifest: Manifest) -> str:
    """The time that a clip covered in training, as far as it is known."""
    span = "" if manifest.span_s is None else f", {manifest.span_s:.2f} s in training"
    return span + ("" if manifest.rate_hz is None else f" at {manifest.rate_hz:.3g} pairs a second")


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
    """Tell what a recording, a video, a store of clips, a bundle or an engine is, and what is wrong in it."""
    if path == "demo" or (Path(path).is_dir() and (Path(path) / "manifest.json").is_file()):
        from velora_edge.bundle import open_bundle

        bundle = open_bundle(path)
        manifest = bundle.manifest
        if as_json:
            click.echo(manifest.model_dump_json(indent=2))
        else:
            _print_rows(_bundle_rows(manifest, bundle.path))
        return
    if is_recording(path):
        if as_json:
            click.echo(json.dumps(describe(path), indent=2))
        else:
            _print_rows(recording_rows(path))
        return
    if is_plan(Path(path)):
        engine = describe_plan(Path(path))
        if as_json:
            click.echo(json.dumps(engine, indent=2))
        else:
            _print_rows(list(engine.items()))
        return
    other = describe_other(Path(path)) if format_name is None else None
    if other is not None:
        if as_json:
            click.echo(json.dumps(other, indent=2))
        else:
            _print_rows(other_rows(other))
        return
    from velora_edge.events.registry import open_events

    with open_events(path, format=format_name, sensor=parse_sensor(sensor)) as reader:
        facts = read_facts(reader, read_look(look))
    if as_json:
        click.echo(json.dumps(facts.as_dict(), indent=2))
    else:
        _print_rows(facts.rows())
