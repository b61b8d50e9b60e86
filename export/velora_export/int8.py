"""Linear layers in int8: QuantizeLinear and DequantizeLinear around each, everything else as it was.

Attention's products, LayerNormalization, residual sums, the patches and the classifier stay in floats. Both
sides are symmetric int8, which is all that TensorRT takes: activations with one scale, weights with one for
each output.

Engines join the pair and the MatMul into one int8 product. ONNX Runtime, on an x86 CPU without VNNI,
multiplies pairs of neighbours, uint8 with int8, and adds the two products in 16 bits, which saturate: a
weight's scale is therefore chosen so that no pair can, whatever comes in. That costs half a bit, and makes
every CPU compute the same numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_export.linear_layers import linear_layers
from velora_export.narrow import add_weight

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from velora_export.linear_layers import LayerKey

TOP = 127
PAIR = 128.0
"""Largest sum of two neighbouring weights of one sign: 255 * 128 < 2**15."""


def quantise(
    model: ir.Model, name: str, thresholds: Mapping[LayerKey, float], *, half_scales: bool = False
) -> int:
    """Make a graph's linear layers compute in int8, in place.

    Args:
        model: in fp32.
        name: rgb, event, diff, head or clip.
        thresholds: by layer, the absolute activation that becomes 127.
        half_scales: choose scales that fp16 holds exactly.

    Returns:
        How many layers do.

    Raises:
        EngineError: if a layer was not calibrated.
    """
    graph = model.graph
    layers = linear_layers(graph, name)
    scales: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
    weights: dict[ir.Value, ir.Value] = {}
    for layer in layers:
        if layer.key not in thresholds:
            raise EngineError(f"the {name} graph has a layer that was not calibrated: {layer.key.module}")
        value = layer.activation
        if value not in scales:
            scale = _held(np.array(thresholds[layer.key] / TOP), half=half_scales)
            scales[value] = _scale_and_zero(graph, value, scale)
        if layer.weight not in weights:
            weights[layer.weight] = _rounded_weight(graph, layer.node, layer.weight, half=half_scales)
        layer.node.replace_input_with(0, _rounded_activation(graph, layer.node, value, *scales[value]))
        layer.node.replace_input_with(1, weights[layer.weight])
    for weight in weights:
        if not weight.uses():
            graph.initializers.pop(str(weight.name))
    return len(layers)


def weight_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each output of a weight [I, O]: float32[O]."""
    whole = np.abs(weight).max(axis=0) / TOP
    even = np.concatenate([weight, np.zeros((len(weight) % 2, weight.shape[1]), weight.dtype)])
    pairs = even.reshape(-1, 2, weight.shape[1])
    sums = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1)).max(axis=0)
    # Two roundings may add one: 127 leaves room for them.
    scales = np.maximum(whole, sums / (PAIR - 1))
    return np.where(scales > 0, scales, 1).astype(np.float32)


def round_weight(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """A weight [I, O] in steps of its scales."""
    return np.clip(np.rint(weight / scales), -TOP, TOP).astype(np.int8)


def _held(scales: NDArray[Any], *, half: bool) -> NDArray[np.float32]:
    """Scales as they will be stored; in fp16 rounded upwards, so that no weight leaves its range."""
    if not half:
        return scales.astype(np.float32)
    near = scales.astype(np.float16)
    up = np.nextafter(near, np.float16(np.inf))
    return np.where(near.astype(np.float64) < scales, up, near).astype(np.float32)


def _scale_and_zero(
    graph: ir.Graph, value: ir.Value, scale: NDArray[np.float32]
) -> tuple[ir.Value, ir.Value]:
    held = add_weight(graph, f"{value.name}.scale", ir.tensor(scale))
    return held, add_weight(graph, f"{value.name}.zero", ir.tensor(np.int8(0)))


def _rounded_activation(
    graph: ir.Graph, layer: ir.Node, value: ir.Value, scale: ir.Value, zero: ir.Value
) -> ir.Value:
    """A pair for this layer alone: ONNX Runtime makes no int8 product of layers that share theirs."""
    name = f"{value.name}.{layer.outputs[0].name}"
    down = _node("QuantizeLinear", [value, scale, zero], f"{name}.int8", ir.DataType.INT8, value)
    up = _node("DequantizeLinear", [down.outputs[0], scale, zero], f"{name}.real", value.dtype, value)
    graph.insert_before(layer, [down, up])
    return up.outputs[0]


def _rounded_weight(graph: ir.Graph, before: ir.Node, value: ir.Value, *, half: bool) -> ir.Value:
    assert value.const_value is not None
    weight = value.const_value.numpy()
    scales = _held(weight_scales(weight), half=half)
    rounded = add_weight(graph, f"{value.name}.int8", ir.tensor(round_weight(weight, scales)))
    scale = add_weight(graph, f"{value.name}.scale", ir.tensor(scales))
    # Without a zero for each output: ONNX Runtime would multiply all of them by the sums of rows.
    up = _node("DequantizeLinear", [rounded, scale], f"{value.name}.real", value.dtype, value)
    up.attributes["axis"] = ir.AttrInt64("axis", 1)
    graph.insert_before(before, up)
    return up.outputs[0]


def _node(kind: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None, like: ir.Value) -> ir.Node:
    """A node whose one output has the name and the type, and the shape of `like`."""
    assert dtype is not None
    node = ir.node(kind, inputs, name=f"{name}.{kind}")
    output = node.outputs[0]
    output.name, output.shape, output.type = name, like.shape, ir.TensorType(dtype)
    return node
