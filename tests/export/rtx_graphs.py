"""Graphs of every precision, traced once, for the real builder; ranges do not matter to it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir
import pytest
from velora_export.onnx.fusible import simplify
from velora_export.onnx.graphs import make_graphs
from velora_export.onnx.onnx_graph import SharedWeights, save_graph, trace
from velora_export.precision.linear_layers import linear_layers
from velora_export.precision.precisions import convert
from velora_export.tensorrt.tensorrt_builder import BuildOptions, BuildProgress, PlanBuilder
from velora_export.tensorrt.tensorrt_layers import (
    check_layers,
    judge_layers,
    parse_builder_list,
    read_stated_types,
)

from velora_edge.bundle import GRAPHS
from velora_edge.gpu.kinds import RTX, Messages
from velora_edge.model.lora import merge

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from velora_export.tensorrt.tensorrt_layers import CompiledLayer

    from velora_edge.manifest import CompiledLayers
    from velora_edge.model.velora import VELoRA

FORMS = {
    "fp32": ("fp32", "fp32"),
    "fp16": ("fp16", "fp32"),
    "bf16": ("bf16", "fp32"),
    "int8": ("int8", "fp16"),
    "int8 in fp32": ("int8", "fp32"),
    "int8 in bf16": ("int8", "bf16"),
    "fp8": ("fp8", "fp16"),
}
"""Precision of the graphs, and what an eight-bit model's other layers compute in."""


def need_rtx() -> None:
    """Skip where the wheels of TensorRT for RTX are not installed: they are x86-64 Linux's alone."""
    pytest.importorskip("tensorrt_rtx_bindings", reason="needs TensorRT for RTX: pip install -e '.[rtx]'")


def write_graphs(model: VELoRA, folder: Path, forms: Sequence[str] = tuple(FORMS)) -> Path:
    """The five graphs in each form, under a folder of its name."""
    merged = merge(model)
    simplify(merged)
    graphs = make_graphs(merged)
    staged = folder / "fp32"
    staged.mkdir(parents=True)
    with SharedWeights(staged) as weights:
        for name in GRAPHS:
            traced = trace(graphs[name], name)
            weights.take(traced)
            save_graph(traced, staged / f"{name}.onnx", {})
    return write_forms(staged, folder, forms)


def write_forms(staged: Path, folder: Path, forms: Sequence[str]) -> Path:
    """Graphs of fp32 in other forms, each under a folder of its name; all ranges are the same."""
    layers = [linear_layers(ir.load(staged / f"{name}.onnx").graph, name) for name in GRAPHS]
    ranges = {layer.key: 4.0 for found in layers for layer in found}
    for form in forms:
        precision, floats = FORMS[form]
        if precision == "fp32":
            continue
        (folder / form).mkdir()
        convert(staged, folder / form, precision, {}, thresholds=ranges, floats=floats)
    return folder


def compile_layers(
    path: Path, precision: str, targets: Sequence[str], lengths: Sequence[int] = ()
) -> tuple[bytes, list[CompiledLayer]]:
    """The engine of a graph by the real compiler, for GPUs that are not here, and its layers.

    Args:
        path: the graph's.
        precision: of the graph.
        targets: compute capabilities.
        lengths: of lists of patches, where it takes one.

    Raises:
        EngineError: if the compiler refuses the graph.
    """
    messages = Messages()
    builder = PlanBuilder(BuildOptions(), messages, kind=RTX, targets=targets)
    plan = builder.build(path, path.stem, precision, BuildProgress(), lengths=lengths)
    return plan, parse_builder_list(messages.take_layers())


def compile_graph(path: Path, precision: str, targets: Sequence[str]) -> tuple[bytes, CompiledLayers]:
    """The same, and what the layers compute in.

    Raises:
        EngineError: if the compiler refuses the graph, or makes of it what was not asked for.
    """
    plan, layers = compile_layers(path, precision, targets)
    compiled = judge_layers(layers, read_stated_types(path))
    check_layers(path.stem, compiled)
    return plan, compiled
