"""Export of a trained model: merge, five graphs, their precision, a report, a manifest; all or nothing."""

from __future__ import annotations

import copy
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

from velora_edge import __version__
from velora_edge.bundle import (
    GRAPHS,
    Bundle,
    BundleWriter,
    EventInput,
    Manifest,
    Precision,
    RGBInput,
    Weights,
)
from velora_edge.errors import InputError
from velora_edge.manifest import ActivePatches, Calibration
from velora_edge.model.checkpoint import state_sha256
from velora_edge.model.lora import merge
from velora_edge.preprocessing.windows import clip_span_s, is_span_off, stride_for
from velora_export.evaluation.sessions import random_clips
from velora_export.onnx.fusible import simplify
from velora_export.onnx.graphs import make_graphs
from velora_export.onnx.onnx_graph import SharedWeights, save_graph, trace
from velora_export.precision.calibration import calibrate
from velora_export.precision.precisions import FLOATS, FORMATS, Floats, convert, opset
from velora_export.report import Measured, write_report

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Mapping, Sequence

    from velora_edge.model.checkpoint import Checkpoint
    from velora_edge.model.velora import VELoRA
    from velora_export.evaluation.sessions import Clips
    from velora_export.precision.quantization import Method

METADATA_PREFIX = "velora."
_IN_METADATA = (
    "name", "version", "labels", "clip_length", "stride", "span_s", "rate_hz", "image_size", "tokens",
    "token_size", "mean", "std", "event", "rgb", "active_patches", "precision", "weights",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """In what form a model is exported, and what that is judged by.

    Attributes:
        precision: of the graphs.
        judged: clips for the report; None: noise.
        calibration: clips that int8 and fp8 take their ranges from; they need them.
        method: how a range is chosen; auto: by what each gives.
        floats: what the other layers of an int8 or fp8 model compute in: fp32 for a CPU, fp16 for a GPU;
            None: fp32 for int8, fp16 for fp8.
        force: keep an export that there are objections to.
    """

    precision: Precision = "fp32"
    judged: Clips | None = None
    calibration: Clips | None = None
    method: Literal["auto"] | Method = "auto"
    floats: Floats | None = None
    force: bool = False

    @property
    def steps(self) -> int:
        """How many lines of progress there will be."""
        return 3 + len(GRAPHS) + {"fp32": 0, "int8": 2, "fp8": 2}.get(self.precision, 1)


def export_bundle(
    model: VELoRA,
    path: str | os.PathLike[str],
    *,
    name: str,
    trained: bool,
    labels: Sequence[str] | None = None,
    event: EventInput | None = None,
    rgb: RGBInput | None = None,
    stride: int = 1,
    span_s: float | None = None,
    rate_hz: float | None = None,
    run: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
    target: Target | None = None,
    progress: Callable[[str], None] | None = None,
) -> Bundle:
    """Write the model as a bundle, once its graphs were found to give the model's own logits.

    Args:
        model: with or without LoRA; it is not changed.
        path: the bundle's folder, `NAME.velora`; one that is there is replaced once the new one is whole.
        name: the model's name.
        trained: False for random weights: then every run says so.
        labels: class names in the order of the logits; None: the model's own.
        event: how events become images; it must be what the model was trained with.
        rgb: how pictures become images.
        stride: pairs from one of a clip's pairs to the next.
        span_s: seconds from the first pair of a clip to its last in training; None: not known.
        rate_hz: pairs a second of the recordings that it was trained on; None: not known.
        run: identity of the training run.
        accuracy: figures of its evaluation.
        target: precision and clips; None: fp32, compared on noise.
        progress: called with a line before each step.

    Raises:
        InputError: if the path is taken by something else, the labels do not fit, or int8 or fp8 has no
            clips.
        EngineError: if a graph cannot be made, gives other logits than the model, or is not worth keeping.
    """
    say, target = progress or (lambda line: None), target or Target()
    if target.precision in FORMATS and target.calibration is None:
        problem = f"{target.precision} takes its ranges from real clips"
        raise InputError(problem, place="--clips", remedy="give some")
    with (
        BundleWriter(path) as writer,
        tempfile.TemporaryDirectory(dir=writer.path.parent, prefix=".") as name_,
    ):
        say("merge LoRA")
        model = _on_cpu(model)
        merged = merge(model)
        manifest = Manifest(
            name=name,
            version=__version__,
            labels=tuple(labels if labels is not None else model.config.labels),
            clip_length=model.config.clip_length,
            stride=stride,
            span_s=span_s,
            rate_hz=rate_hz,
            image_size=model.config.image_size,
            tokens=model.tokens,
            token_size=model.token_size,
            mean=model.config.mean,
            std=model.config.std,
            event=event or EventInput(),
            rgb=rgb or RGBInput(),
            active_patches=_active_patches(model),
            weights=Weights(
                trained=trained,
                architecture=describe_architecture(model),
                sha256=state_sha256(merged.state_dict()),
                run=dict(run or {}),
            ),
            precision=target.precision,
            opset=opset(target.precision, target.floats),
            accuracy=dict(accuracy or {}),
        )
        _check_labels(manifest, model)
        simplify(merged)
        staged = writer.folder if target.precision == "fp32" else Path(name_)
        _trace_graphs(merged, staged, manifest, say)
        calibration = _convert(staged, writer.folder, manifest, target, say)
        measured = Measured(model, merged, writer.folder, staged, manifest)
        judged = target.judged or random_clips(model.config)
        report = write_report(measured, judged, calibration, say, force=target.force)
        return writer.finish(manifest.model_copy(update={"report": report}))


def require_stride(description: Checkpoint, path: Path) -> None:
    """Make sure that a live clip covers the time that a clip covered in training, where that is known.

    A model may be trained on clips that are spread over whole recordings. A live stream has no whole: its
    clips are made by a stride, which somebody has to choose.

    Args:
        description: what the checkpoint says of itself, corrected.
        path: where it lies.

    Raises:
        InputError: if its clips were spread, and nobody has chosen a stride that covers their time.
    """
    inputs, length = description.inputs, description.model.clip_length
    if description.run.get("data", {}).get("sampling") != "spread":
        return
    if inputs.span_s is None or inputs.rate_hz is None:
        if inputs.stride > 1:
            return
        took, remedy = "", "give --stride N, or --stride auto with --span S and --rate HZ"
    else:
        live_s = clip_span_s(length, inputs.stride, inputs.rate_hz)
        if not is_span_off(live_s, inputs.span_s):
            return
        took = f" ({inputs.span_s:.2f} s; {live_s:.2f} s by its stride of {inputs.stride})"
        stride = stride_for(inputs.span_s, length, inputs.rate_hz)
        remedy = f"give --stride auto, which takes pairs {stride} apart, or --stride N"
    raise InputError(
        f"was trained on clips spread over whole recordings{took}, which a live stream does not have",
        path=path,
        remedy=remedy,
    )


def _trace_graphs(merged: VELoRA, folder: Path, manifest: Manifest, say: Callable[[str], None]) -> None:
    metadata = manifest_metadata(manifest)
    graphs = make_graphs(merged)
    with SharedWeights(folder) as weights:
        for graph in GRAPHS:
            say(f"graph {graph}.onnx")
            traced = trace(graphs[graph], graph)
            weights.take(traced)
            save_graph(traced, folder / f"{graph}.onnx", metadata)


def _convert(
    staged: Path, folder: Path, manifest: Manifest, target: Target, say: Callable[[str], None]
) -> Calibration | None:
    """Write the graphs in the precision that is wanted, where they were traced in another."""
    if target.precision == "fp32":
        return None
    metadata = manifest_metadata(manifest)
    if target.precision not in FORMATS or target.calibration is None:
        say(f"types: {target.precision}")
        convert(staged, folder, target.precision, metadata)
        return None
    clips, precision = target.calibration, target.precision
    floats = target.floats or FLOATS[precision]
    say(f"calibration on {len(clips)} clips: {clips.source}")
    ranges = calibrate(staged, clips, target.method, precision=precision)
    say(f"types: {precision} and {floats}, ranges by {ranges.method}")
    layers = convert(staged, folder, precision, metadata, thresholds=ranges.thresholds, floats=floats)
    return Calibration(
        method=ranges.method, source=clips.source, clips=len(clips), layers=layers, floats=floats
    )


def _on_cpu(model: VELoRA) -> VELoRA:
    """The model in eval mode and in fp32 on the CPU: itself where it is so already, else a copy."""
    plain = all(p.device.type == "cpu" and p.dtype == torch.float32 for p in model.parameters())
    return model if plain and not model.training else copy.deepcopy(model).cpu().float().eval()


def _check_labels(manifest: Manifest, model: VELoRA) -> None:
    if len(manifest.labels) != len(model.config.labels):
        raise InputError(
            f"the model has {len(model.config.labels)} classes, got {len(manifest.labels)} labels",
            remedy="give one label for each class, in the order of the logits",
        )


def _active_patches(model: VELoRA) -> ActivePatches | None:
    if not model.config.active_patches:
        return None
    return ActivePatches(grid=model.tower("event").vit.patch_embed.grid_size, blank=model.config.blank)


def describe_architecture(model: VELoRA) -> str:
    """One line for the reader: backbone, size of an image, form of the head."""
    config = model.config
    args = ", ".join(f"{key}={value}" for key, value in config.backbone.args.items())
    form = "published fusion" if config.compat == "reference" else {"linear": "linear probe"}.get(
        config.tuning, f"{config.tuning} tuning"
    )  # fmt: skip
    height, width = config.image_size
    patches = ", active patches alone" if config.active_patches else ""
    return f"{config.backbone.name}({args}), {width}x{height}, {form}{patches}"


def manifest_metadata(manifest: Manifest) -> dict[str, str]:
    """The manifest's facts as an ONNX graph carries them in `metadata_props`: JSON, keys `velora.<fact>`."""
    facts = manifest.model_dump(mode="json")
    return {f"{METADATA_PREFIX}{key}": json.dumps(facts[key]) for key in _IN_METADATA}
