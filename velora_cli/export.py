"""`velora export`: a checkpoint to a bundle; a bundle to a Triton model repository."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_cli.training.import_checkpoint import input_options, read_corrections
from velora_edge.bundle import MANIFEST, Bundle, find_model, open_bundle
from velora_edge.console import note, overwrite_option, refuse_existing
from velora_edge.errors import InputError
from velora_edge.preprocessing.windows import clip_span_s

if TYPE_CHECKING:
    from velora_export.bundle_export import Target
    from velora_export.evaluation.sessions import RealClips

    from velora_edge.datatypes import FitMode
    from velora_edge.manifest import Manifest, Report
    from velora_edge.model.checkpoint import Checkpoint

_PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")


class _Steps:
    """Numbers the lines of an export as they come."""

    def __init__(self, total: int) -> None:
        self._done, self._total = 0, total

    def __call__(self, line: str) -> None:
        self._done += 1
        click.echo(f"[{self._done}/{self._total}] {line}", err=True)


@click.command(
    epilog="Examples:  velora export runs/demo_model/best my.velora  |  "
    "velora export runs/demo_model/best my-int8.velora --precision int8 --clips synthetic  |  "
    "velora export demo --triton models/"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--name", help="The model's name; by default that of OUT.")
@input_options
@click.option(
    "--precision",
    type=click.Choice(_PRECISIONS),
    default="fp32",
    show_default=True,
    help="Of the graphs: fp32 for a CPU, fp16 or bf16 for a GPU, int8 for either, fp8 for a GPU from Ada on.",
)
@click.option(
    "--clips",
    metavar="PATH",
    help="Real clips for the report and the ranges of int8 and fp8: a data set, an .npz file, or synthetic.  "
    "[default: synthetic for a model that was trained on it, else noise]",
)
@click.option("--kind", default="auto", show_default=True, help="The data set's layout.")
@click.option("--judge-by", default=200, show_default=True, metavar="N", help="At most so many clips.")
@click.option("--calibrate-on", default=32, show_default=True, metavar="N", help="At most so many clips.")
@click.option(
    "--ranges",
    type=click.Choice(["auto", "percentile", "entropy", "max"]),
    default="auto",
    show_default=True,
    help="Where the ranges of int8 and fp8 end; auto tries two, and takes what is nearer to fp32.",
)
@click.option(
    "--floats",
    type=click.Choice(["fp32", "fp16", "bf16"]),
    help="What an int8 or fp8 model's other layers compute in: fp32 for a CPU, bf16 for one that has it and "
    "OpenVINO, fp16 for a GPU.  "
    "[default: fp32 for int8, fp16 for fp8]",
)
@overwrite_option
@click.option("--force", is_flag=True, help="Keep an export that is slower or less accurate than fp32.")
@click.option(
    "--triton",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write a model repository for Triton Inference Server; CHECKPOINT may be a bundle.",
)
def command(checkpoint: Path, out: Path | None, triton: Path | None, overwrite: bool, **given: Any) -> None:
    """Turn CHECKPOINT, a run's folder (its best) or one that import wrote, into the bundle OUT (NAME.velora).

    LoRA is merged, five ONNX graphs are written over one file of weights, and their logits are compared
    with the model's own before the bundle is moved to its place. An int8 bundle that is slower here than
    fp32, or loses more than half a point of accuracy, is refused. So is a model of clips that were spread
    over whole recordings, unless --stride says how far apart a live stream's pairs are taken.
    """
    checkpoint = best_of(checkpoint)
    is_bundle = (find_model(checkpoint) / MANIFEST).is_file()
    if is_bundle == (out is not None) or (triton is None and out is None):
        raise click.UsageError("give CHECKPOINT and OUT, or a bundle and --triton DIR")
    if out is not None and (out / MANIFEST).is_file():  # anything else is never replaced
        refuse_existing(out, overwrite=overwrite)
    bundle = open_bundle(checkpoint) if out is None else _export(checkpoint, out, **given)
    if triton is not None:
        _write_triton(bundle, triton)


def best_of(path: Path) -> Path:
    """The best checkpoint of a run's folder; any other path as it is."""
    best = path / "best"
    if not best.is_dir():
        return path
    note(f"taking {best}")
    return best


def _write_triton(bundle: Bundle, folder: Path) -> None:
    from velora_export.triton import write_repository

    models = write_repository(bundle, folder)
    click.echo(f"{folder}: {', '.join(models)}")
    click.echo(f"next: tritonserver --model-repository {folder}")


def _export(
    checkpoint: Path,
    out: Path,
    *,
    name: str | None,
    labels: Path | None,
    fit: FitMode | None,
    stride: int | str | None,
    palette: str | None,
    span_s: float | None,
    rate_hz: float | None,
    **given: Any,
) -> Bundle:
    from velora_export.bundle_export import export_bundle, require_stride

    from velora_edge.model.checkpoint import load_model, read_checkpoint

    corrections = read_corrections(labels, fit, stride, palette, span_s, rate_hz)
    description = read_checkpoint(checkpoint)
    sampling = description.run.get("data", {}).get("sampling", "")
    inputs = corrections.inputs(description.inputs, description.model.clip_length, sampling)
    if stride is None:
        require_stride(description.model_copy(update={"inputs": inputs}), checkpoint)
    description = description.model_copy(update={"inputs": inputs})
    target = _target(description, **given)
    bundle = export_bundle(
        load_model(checkpoint),
        out,
        name=name or out.name.removesuffix(".velora"),
        trained=description.trained,
        labels=corrections.labels,
        event=inputs.event,
        rgb=inputs.rgb,
        stride=inputs.stride,
        span_s=inputs.span_s,
        rate_hz=inputs.rate_hz,
        run=description.run,
        accuracy=description.accuracy,
        target=target,
        progress=_Steps(target.steps),
    )
    _show(bundle)
    return bundle


def _target(
    description: Checkpoint,
    *,
    precision: Any,
    ranges: Any,
    floats: Any,
    force: bool,
    clips: str | None,
    **counts: Any,
) -> Target:
    from velora_export.bundle_export import Target

    data = description.run.get("data", {})
    if clips is None and data.get("name") == "synthetic":
        clips = "synthetic"
    if clips is None and precision in ("int8", "fp8"):
        raise InputError(
            f"{precision} takes its ranges from real clips",
            place="--clips",
            remedy="name a data set, such as the one that the model was trained on",
        )
    if clips is None:
        return Target(precision)
    real = _read_clips(description, clips, **counts)
    return Target(precision, real.judged, real.calibration, ranges, floats, force)


def _read_clips(
    description: Checkpoint, clips: str, *, kind: str, judge_by: int, calibrate_on: int
) -> RealClips:
    from velora_export.evaluation.sessions import read_npz, read_real_clips

    from velora_cli.training.dataset import open_source
    from velora_edge.data.clips.augment import ClipConfig

    if Path(clips).suffix == ".npz":
        return read_npz(Path(clips), description.model)
    data, inputs = description.run.get("data", {}), description.inputs
    form = ClipConfig(
        sampling=data.get("sampling", "spread"),
        stride=inputs.stride,
        event=inputs.event,
        rgb=inputs.rgb,
        rate_hz=inputs.rate_hz,
    )
    spec = form.spec(description.model.clip_length, description.model.image_size)
    source = open_source(clips, spec, kind, int(data.get("seed", 0)))
    return read_real_clips(
        source, description.model.labels, description.run, calibration=calibrate_on, judged=judge_by
    )


def _show(bundle: Bundle) -> None:
    manifest = bundle.manifest
    assert manifest.report is not None
    size = (manifest.report.graph_bytes or 0) / 1e6
    click.echo(
        f"{bundle.path}: {manifest.precision}, {size:.1f} MB, {len(manifest.labels)} labels, "
        f"clips of {manifest.clip_length}, {'trained' if manifest.weights.trained else 'random weights'}"
    )
    if (line := _span_line(manifest)) is not None:
        click.echo(line)
    for line in _figures(manifest.report):
        click.echo(line)
    click.echo(f"next: velora-live {bundle.path} --events RECORDING --rgb VIDEO")


def _span_line(manifest: Manifest) -> str | None:
    """The time that a live clip covers beside that in training, where both are known."""
    if manifest.span_s is None or manifest.rate_hz is None:
        return None
    span_s = clip_span_s(manifest.clip_length, manifest.stride, manifest.rate_hz)
    return (
        f"a clip covers {span_s:.2f} s at {manifest.rate_hz:.3g} pairs a second (stride {manifest.stride}), "
        f"{manifest.span_s:.2f} s in training"
    )


def _figures(report: Report) -> list[str]:
    lines = [
        f"largest difference of a logit: merged {report.merged:.1e}, ONNX Runtime {report.onnx:.1e} "
        f"({report.relative or 0:.1e} of the largest), streaming {report.streaming:.1e} "
        f"({report.clips} clips, {report.source}); same label in {report.top1_agreement:.1%}"
    ]
    if report.accuracy is not None:
        told = report.accuracy
        lines.append(
            f"accuracy: {told.exported:.2%} of {told.clips} clips, the model in torch {told.torch:.2%}"
        )
    if report.latency is not None:
        step = report.latency
        fp32 = "" if step.fp32_p50_ms is None else f", in fp32 {step.fp32_p50_ms:.1f} ms"
        lines.append(
            f"a streaming step: {step.p50_ms:.1f} ms{fp32}, 99 % within {step.p99_ms:.1f} ms "
            f"({step.machine}, {step.threads} threads)"
        )
    return [*lines, *(f"warning: {reason}" for reason in report.overridden)]
