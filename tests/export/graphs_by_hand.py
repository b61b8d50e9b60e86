"""ONNX graphs of a few nodes, written as text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx
import onnx.parser
import onnx.shape_inference
import onnx_ir as ir

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def graph(text: str, *names: str, weights: dict[str, NDArray[np.float32]] | None = None) -> ir.Model:
    """A graph with the types of all its values; its nodes get the names that are given, in their order."""
    model = onnx.parser.parse_model('<ir_version: 9, opset_import: ["" : 18]>\n' + text)
    for name, array in (weights or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
    for node, name in zip(model.graph.node, names, strict=False):
        node.name = name
    return ir.from_proto(onnx.shape_inference.infer_shapes(model, strict_mode=True))


def types(model: ir.Model) -> dict[str, str]:
    """The type of each node's first output, by the output's name."""
    outputs = [node.outputs[0] for node in model.graph]
    return {str(value.name): "?" if value.dtype is None else value.dtype.name for value in outputs}
