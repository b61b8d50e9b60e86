"""Preparation of the GPU check, on any CPU: bundles of each precision, engines, expected logits, arithmetic.

`prepare(DIR, "vit-s", ...)` writes `DIR/vit-s/PRECISION.velora`, with engines of TensorRT for RTX where its
compiler is installed, and `DIR/vit-s/expected.npz` and `about.json` last: the folder is ready when they are
there. Ranges of int8 and fp8 come from noise: for speed they do not matter, and the report's differences say
what they do to the logits of random weights.
"""

from __future__ import annotations

import json
import math
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_edge.bundle import GRAPHS, BundleWriter, Manifest, Weights, find_model, open_bundle, read_manifest
from velora_edge.errors import EngineError, MissingExtraError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from velora_export.tensorrt.tensorrt_engines import BuiltEngine, BundleBuilder

    from velora_edge.bundle import Bundle, Precision
    from velora_edge.model.config import ModelConfig

MODELS = ("demo", "vit-s", "vit-b")
PRECISIONS: tuple[Precision, ...] = ("fp32", "fp16", "bf16", "int8", "fp8")
FLOATS = {"int8": "fp16", "fp8": "fp16"}
STEP = ("rgb", "event", "diff", "head")
ABOUT = "about.json"


def torch_config(name: str) -> ModelConfig | None:
    """The configuration of a model with random weights; None for the packaged one, which has graphs alone."""
    from streaming_models import VIT_B, VIT_S, vit_config

    return {"vit-s": vit_config(VIT_S), "vit-b": vit_config(VIT_B)}.get(name)


def is_ready(folder: Path, precisions: Sequence[str]) -> bool:
    """Whether a model's folder holds all that a run on these precisions needs."""
    bundles = [folder / f"{precision}.velora" / "manifest.json" for precision in precisions]
    return all(file.is_file() for file in (folder / ABOUT, *bundles))


def prepare(
    folder: Path,
    name: str,
    precisions: Sequence[Precision],
    *,
    config: ModelConfig | None = None,
    engines: bool = True,
    say: Callable[[str], None] = print,
) -> None:
    """Make what is missing of a model's folder, `folder / name`.

    Args:
        folder: of all models.
        name: one of `MODELS`, or any name where `config` is given.
        precisions: which of them.
        config: of a model with random weights; None: by the name.
        engines: build those of TensorRT for RTX.
        say: called with a line before each step.
    """
    home = folder / name
    home.mkdir(parents=True, exist_ok=True)
    if not (home / "fp32.velora" / "manifest.json").is_file():
        say(f"{name}: graphs")
        _write_fp32(home / "fp32.velora", name, config or torch_config(name), say)
    for precision in precisions:
        if not (home / f"{precision}.velora" / "manifest.json").is_file():
            say(f"{name}: {precision}")
            _write_precision(home, precision)
    if not (home / ABOUT).is_file():
        say(f"{name}: expected logits")
        _write_expected(home)
    for precision in precisions if engines else ():
        say(f"{name}: engines in {precision}")
        refusal = build_engines(open_bundle(home / f"{precision}.velora"), say)
        if refusal:
            say(f"{name}: no engines of TensorRT for RTX in {precision}: {refusal}")


def _write_fp32(path: Path, name: str, config: ModelConfig | None, say: Callable[[str], None]) -> None:
    if config is None:
        packaged = open_bundle(find_model(name))
        with BundleWriter(path) as writer:
            for file in packaged.manifest.files:
                shutil.copy2(packaged.file(file), writer.folder / file)
            writer.finish(packaged.manifest.model_copy(update={"engines": ()}))
        return
    from streaming_models import make_model, trace_graphs

    model = make_model(config)
    with BundleWriter(path) as writer:
        trace_graphs(model, writer.folder, GRAPHS, say)
        writer.finish(
            Manifest(
                name=name,
                version="0",
                labels=config.labels,
                clip_length=config.clip_length,
                image_size=config.image_size,
                tokens=model.tokens,
                token_size=model.token_size,
                mean=config.mean,
                std=config.std,
                weights=Weights(trained=False, architecture=config.backbone.name, sha256="0" * 64),
                opset=18,
            )
        )


def _write_precision(home: Path, precision: Precision) -> None:
    from velora_export.precision.calibration import calibrate
    from velora_export.precision.precisions import FORMATS, convert, opset

    staged, floats = home / "fp32.velora", FLOATS.get(precision)
    manifest = read_manifest(staged)
    thresholds = {}
    if precision in FORMATS:
        thresholds = dict(calibrate(staged, noise(manifest), "percentile", precision=precision).thresholds)
    with BundleWriter(home / f"{precision}.velora") as writer:
        convert(staged, writer.folder, precision, {}, thresholds=thresholds, floats=floats)  # type: ignore[arg-type]
        changes = {"precision": precision, "opset": opset(precision, floats), "report": None}  # type: ignore[arg-type]
        writer.finish(manifest.model_copy(update=changes))


def noise(manifest: Manifest) -> Any:
    """One clip of noise in the model's size, as `velora_export` makes clips; the same each time."""
    from velora_export.evaluation.sessions import Clips
    from velora_export.tensorrt.tensorrt_parity import noise_clips

    drawn = noise_clips(manifest, count=1)
    return Clips(drawn.rgb, drawn.event, drawn.source, are_real=False)


def _write_expected(home: Path) -> None:
    """Logits of the fp32 graphs by ONNX Runtime on the CPU, clip and streamed, and the arithmetic of both."""
    from velora_export.evaluation.sessions import Sessions, stream_clip

    path = home / "fp32.velora"
    clips, sessions = noise(read_manifest(path)), Sessions(path)
    flags = clips.flags()
    clip = sessions.run("clip", {"rgb": clips.rgb, "event": clips.event, **flags})
    step = stream_clip(sessions, clips.rgb[0], clips.event[0], flags)
    np.savez_compressed(home / "expected.npz", rgb=clips.rgb[0], event=clips.event[0], clip=clip, step=step)
    counted = {name: count_products(path / f"{name}.onnx") for name in STEP}
    about = {"step": sum(counted.values()), "clip": clip_products(counted, len(clips.rgb[0]))}
    (home / ABOUT).write_text(json.dumps({"multiplications": about}, indent=2) + "\n")


def clip_products(counted: Mapping[str, int], pairs: int) -> int:
    """Multiplications of a clip: every tower on all its images, the head once."""
    towers = (counted["rgb"] + counted["event"]) * pairs + counted["diff"] * (pairs - 1)
    return towers + counted["head"]


def count_products(path: Path) -> int:
    """Multiplications of a graph's matrix products and convolutions, batch 1.

    Raises:
        ValueError: if a product's shape is not known.
    """
    return sum(_multiplications(node) for node in ir.load(path).graph)


def _multiplications(node: ir.Node) -> int:
    if node.op_type not in ("MatMul", "Gemm", "Conv"):
        return 0
    factor = node.inputs[1] if node.op_type == "Conv" else node.inputs[0]
    output, shape = _shape(node, node.outputs[0]), _shape(node, factor)
    return math.prod(output) * (math.prod(shape[1:]) if node.op_type == "Conv" else shape[-1])


def _shape(node: ir.Node, value: ir.Value | None) -> list[int]:
    if value is None or value.shape is None:
        raise ValueError(f"the shape of {node.name} is not known; export the model again")
    return [size if isinstance(size, int) else 1 for size in value.shape]  # the open axis is the batch


def build_engines(bundle: Bundle, say: Callable[[str], None] = print) -> str:
    """Build what is missing of the bundle's engines by TensorRT for RTX; what it refuses, in its words."""
    from velora_export.tensorrt.tensorrt_builder import BuildOptions
    from velora_export.tensorrt.tensorrt_engines import BundleBuilder, rtx_gpus
    from velora_export.tensorrt.tensorrt_parity import noise_clips

    from velora_edge.gpu.kinds import default_targets

    manifest = bundle.manifest
    try:
        target = rtx_gpus(default_targets(manifest.precision))
        with BundleBuilder(bundle, BuildOptions(), noise_clips(manifest, count=1), target) as builder:
            for graph in GRAPHS:
                say(f"  {build_engine(builder, graph).describe()}")
    except (EngineError, MissingExtraError) as error:
        return str(error)
    return ""


def build_engine(builder: BundleBuilder, graph: str) -> BuiltEngine:
    """One engine, also where production would not keep it: the table tells what it is.

    Raises:
        EngineError: if it cannot be built at all.
    """
    from velora_export.tensorrt.tensorrt_builder import BuildProgress

    try:
        return next(builder.build([graph], BuildProgress(), force=False))
    except EngineError:
        return next(builder.build([graph], BuildProgress(), force=True))
