"""Linear layers in eight bits: QuantizeLinear and DequantizeLinear around each, everything else as it was.

Attention's products, LayerNormalization, residual sums, the patches and the classifier stay in floats. Both
sides are symmetric, which is all that TensorRT takes: activations with one scale, weights as their format
says. Engines join the pairs and the MatMul into one product of eight-bit factors.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_export.precision.linear_layers import linear_layers
from velora_export.precision.to_half import add_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from velora_export.precision.histograms import Method
    from velora_export.precision.linear_layers import LayerKey


@dataclass(frozen=True)
class NumberFormat:
    """Eight bits for the factors of a linear layer.

    Attributes:
        name: of the precision.
        dtype: of the factors in a graph.
        top: the largest number, which an activation at its threshold becomes.
        methods: that `auto` takes the best of to choose a threshold.
        weight_scales: from a weight float32[I, O] to each output's scale, float32[O], or to one, float32[].
        round_weight: from a weight [I, O] and its scales to the numbers that are stored, saturating.
    """

    name: str
    dtype: ir.DataType
    top: float
    methods: tuple[Method, ...]
    weight_scales: Callable[[NDArray[np.float32]], NDArray[np.float32]]
    round_weight: Callable[[NDArray[np.float32], NDArray[np.float32]], NDArray[Any]]


def quantise(
    model: ir.Model,
    name: str,
    thresholds: Mapping[LayerKey, float],
    form: NumberFormat,
    *,
    half_scales: bool = False,
) -> int:
    """Make a graph's linear layers compute in a format of eight bits, in place.

    Args:
        model: in fp32.
        name: rgb, event, diff, head or clip.
        thresholds: by layer, the absolute activation that becomes the format's largest number.
        form: the format.
        half_scales: choose scales that fp16 holds exactly.

    Returns:
        How many layers do.

    Raises:
        EngineError: if a layer was not calibrated.
    """
    layers = linear_layers(model.graph, name)
    rewriting = _Rewriting(model.graph, form, half_scales)
    for layer in layers:
        if layer.key not in thresholds:
            raise EngineError(f"the {name} graph has a layer that was not calibrated: {layer.key.module}")
        activation = rewriting.round_activation(layer.node, layer.activation, thresholds[layer.key])
        weight = rewriting.round_weight(layer.node, layer.weight)
        layer.node.replace_input_with(0, activation)
        layer.node.replace_input_with(1, weight)
    rewriting.drop_weights()
    return len(layers)


class _Rewriting:
    """One graph while its layers change, with what was made for which value."""

    def __init__(self, graph: ir.Graph, form: NumberFormat, half_scales: bool) -> None:
        self._graph, self._form, self._half = graph, form, half_scales
        self._scales: dict[ir.Value, tuple[ir.Value, ir.Value]] = {}
        self._weights: dict[ir.Value, ir.Value] = {}

    def round_activation(self, layer: ir.Node, value: ir.Value, threshold: float) -> ir.Value:
        """A pair for this layer alone: ONNX Runtime makes no int8 product of layers that share theirs."""
        if value not in self._scales:
            self._scales[value] = self._scale_and_zero(value, threshold)
        scale, zero = self._scales[value]
        name = f"{value.name}.{layer.outputs[0].name}"
        down = _node("QuantizeLinear", [value, scale, zero], f"{name}.{self._form.name}", self._form.dtype)
        up = _node("DequantizeLinear", [down.outputs[0], scale, zero], f"{name}.real", value.dtype)
        down.outputs[0].shape = up.outputs[0].shape = value.shape
        self._graph.insert_before(layer, [down, up])
        return up.outputs[0]

    def round_weight(self, layer: ir.Node, value: ir.Value) -> ir.Value:
        """The weight in eight bits; the layers that share it share the result."""
        if value not in self._weights:
            self._weights[value] = self._rounded_weight(layer, value)
        return self._weights[value]

    def drop_weights(self) -> None:
        """Forget weights that no layer uses any more."""
        for weight in self._weights:
            if not weight.uses():
                self._graph.initializers.pop(str(weight.name))

    def _scale_and_zero(self, value: ir.Value, threshold: float) -> tuple[ir.Value, ir.Value]:
        scale = ir.tensor(held_scales(np.array(threshold / self._form.top), half=self._half))
        zero = ir.tensor(np.zeros((), self._form.dtype.numpy()), dtype=self._form.dtype)
        names = (f"{value.name}.scale", f"{value.name}.zero")
        return add_weight(self._graph, names[0], scale), add_weight(self._graph, names[1], zero)

    def _rounded_weight(self, before: ir.Node, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        weight, form = value.const_value.numpy(), self._form
        scales = held_scales(form.weight_scales(weight), half=self._half)
        numbers = ir.tensor(form.round_weight(weight, scales), dtype=form.dtype)
        rounded = add_weight(self._graph, f"{value.name}.{form.name}", numbers)
        scale = add_weight(self._graph, f"{value.name}.scale", ir.tensor(scales))
        # Without a zero for each output: ONNX Runtime would multiply all of them by the sums of rows.
        up = _node("DequantizeLinear", [rounded, scale], f"{value.name}.real", value.dtype)
        up.outputs[0].shape = value.shape
        if scales.ndim:
            up.attributes["axis"] = ir.AttrInt64("axis", 1)
        self._graph.insert_before(before, up)
        return up.outputs[0]


def held_scales(scales: NDArray[Any], *, half: bool) -> NDArray[np.float32]:
    """Scales as they will be stored; in fp16 rounded upwards, so that no weight leaves its range."""
    if not half:
        return scales.astype(np.float32)
    near = scales.astype(np.float16)
    up = np.nextafter(near, np.float16(np.inf))
    return np.where(near.astype(np.float64) < scales, up, near).astype(np.float32)


def _node(kind: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None) -> ir.Node:
    """A node whose one output has the name and the type."""
    assert dtype is not None
    node = ir.node(kind, inputs, name=f"{name}.{kind}")
    output = node.outputs[0]
    output.name, output.type = name, ir.TensorType(dtype)
    return node
