"""Conversion of a model's fp32 graphs to another precision, over one file of weights again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import onnx_ir as ir

from velora_edge.bundle import GRAPHS
from velora_edge.datatypes import MODALITIES
from velora_export.onnx.onnx_graph import OPSET, SharedWeights, save_graph
from velora_export.precision.quantization import FP8, INT8, quantise
from velora_export.precision.to_half import FLOAT, HALVES, to_half

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from velora_edge.bundle import Precision
    from velora_export.precision.linear_layers import LayerKey

Floats = Literal["fp32", "fp16", "bf16"]
STREAMING = (*MODALITIES, "head")
FORMATS = {"int8": INT8, "fp8": FP8}
"""What linear layers compute in, by the precisions of eight bits."""
FLOATS: dict[str, Floats] = {"int8": "fp32", "fp8": "fp16"}
"""What the other layers of these compute in, if nothing else is asked for. No CPU multiplies fp8."""
TOKENS = {"fp16": ir.DataType.FLOAT16}
"""Precisions whose tokens are not float32. NumPy has no bfloat16: a host could not hold such tokens."""


def convert(
    staged: Path,
    folder: Path,
    precision: Precision,
    metadata: Mapping[str, str],
    *,
    thresholds: Mapping[LayerKey, float] | None = None,
    floats: Floats | None = None,
    graphs: Sequence[str] = GRAPHS,
) -> int:
    """Write the graphs in another precision.

    Args:
        staged: folder of the fp32 graphs.
        folder: where to.
        precision: fp16, bf16, int8 or fp8.
        metadata: `metadata_props` of each graph.
        thresholds: of the layers' activations, for int8 and fp8.
        floats: what the other layers of an int8 or fp8 model compute in; None: as `FLOATS` says.
        graphs: which of them.

    Returns:
        How many linear layers of the streaming graphs compute in eight bits.
    """
    layers, floats = 0, (floats or FLOATS.get(precision)) if precision in FORMATS else None
    with SharedWeights(folder) as weights:
        for name in graphs:
            model = ir.load(staged / f"{name}.onnx")
            if precision in FORMATS:
                scales = HALVES.get(floats or "", FLOAT)
                count = quantise(model, name, thresholds or {}, FORMATS[precision], scales)
                layers += count if name in STREAMING else 0
            if (others := floats or precision) != "fp32":
                _narrow(model, name, others)
            model.graph.opset_imports[""] = opset(precision, floats)
            weights.take(model)
            save_graph(model, folder / f"{name}.onnx", dict(metadata))
    return layers


def opset(precision: Precision, floats: Floats | None = None) -> int:
    """Of a precision's graphs; 19 is the first that quantises fp16 and bf16, and to fp8."""
    return 19 if precision == "fp8" or (precision == "int8" and floats in HALVES) else OPSET


def _narrow(model: ir.Model, name: str, precision: str) -> None:
    tokens = TOKENS.get(precision, FLOAT)
    inputs = MODALITIES if name == "head" and tokens != FLOAT else ()
    output = tokens if name in MODALITIES else FLOAT
    to_half(model, HALVES[precision], inputs=inputs, output=output)


def folder_bytes(folder: Path) -> int:
    """Size of the graphs and the weights in a folder."""
    return sum(file.stat().st_size for file in folder.iterdir() if file.suffix in (".onnx", ".bin"))
