"""Quantisation of linear layers to eight bits, int8 or fp8: QuantizeLinear and DequantizeLinear around each.

Attention's products, LayerNormalization, residual sums, the patches and the classifier stay in floats. Both
sides of a product are symmetric, which is all that TensorRT takes: activations with one scale, weights as
their format says. Engines join the pairs and the MatMul into one product of eight-bit factors.

int8: scales that no CPU's sums can overflow with. ONNX Runtime, on an x86 CPU without VNNI, multiplies pairs
of neighbours, uint8 with int8, and adds the two products in 16 bits, which saturate: a weight's scale is
therefore chosen so that no pair can, whatever comes in. That costs half a bit, and makes every CPU compute
the same numbers.

fp8: E4M3FN, four bits of exponent and three of mantissa, without infinities. The largest number is 448, and
what is larger becomes 448: unbounded, a cast would make it NaN. Numbers from 2**-6 on keep four significant
bits; below lie steps of 2**-9. (ONNX, "Float stored in 8 bits"; Micikevicius et al., FP8 Formats for Deep
Learning, 2022.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_export.precision.linear_layers import linear_layers
from velora_export.precision.to_half import FLOAT, add_weight

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from velora_export.precision.linear_layers import LayerKey


Method = Literal["percentile", "entropy", "max"]

BINS = 8192
LEVELS = 128
"""Steps of int8 from zero on."""
PERCENTILE = 99.99
_COARSE = 2048
"""Bins that the entropy is looked for in (as in TensorRT's calibrator)."""


class AbsHistogram:
    """Counts of absolute values, from zero to a range that doubles when it is left.

    Attributes:
        counts: int64[BINS].
        limit: upper end of the last bin; 0 before anything but zeros was seen.
    """

    def __init__(self) -> None:
        self.counts = np.zeros(BINS, np.int64)
        self.limit = 0.0

    def add(self, values: NDArray[np.float32]) -> None:
        """Count values of any shape.

        Raises:
            EngineError: if one of them is no number.
        """
        sizes = np.abs(values.reshape(-1))
        largest = float(sizes.max(initial=0))
        if not np.isfinite(largest):
            raise EngineError("an activation is no number: the model cannot be calibrated on these clips")
        if self.limit == 0:
            self.limit = largest
        while largest > self.limit:
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.limit *= 2
        step = self.limit / BINS if self.limit else 1.0
        places = np.minimum((sizes / step).astype(np.int64), BINS - 1)
        self.counts += np.bincount(places, minlength=BINS)

    def threshold(self, method: Method) -> float:
        """The absolute value that becomes the largest number; what is larger is cut off.

        1 where only zeros were seen.
        """
        if self.limit == 0:
            return 1.0
        if method == "entropy":
            return entropy(self.counts, self.limit)
        if method == "max":
            return percentile(self.counts, self.limit, share=100)
        return percentile(self.counts, self.limit)


def percentile(counts: NDArray[np.int64], limit: float, share: float = PERCENTILE) -> float:
    """Upper end of the first bin below which `share` percent of the values lie."""
    summed = counts.cumsum()
    place = int(np.searchsorted(summed, share / 100 * summed[-1]))
    return (place + 1) * limit / len(counts)


def entropy(counts: NDArray[np.int64], limit: float) -> float:
    """The range whose rounding to 128 levels tells least apart from the values themselves.

    Smallest Kullback-Leibler divergence, as S. Migacz gave it for TensorRT (8-bit Inference with TensorRT,
    GTC 2017): what lies beyond the range counts in its last bin; a level's values spread evenly over those of
    its bins that hold any.
    """
    coarse = counts.reshape(_COARSE, -1).sum(1).astype(np.float64)
    divergences = {bins: _divergence(coarse, bins) for bins in range(LEVELS, _COARSE + 1, 16)}
    best = min(divergences, key=divergences.__getitem__)
    return best * limit / _COARSE


def _divergence(counts: NDArray[np.float64], bins: int) -> float:
    inside = counts[:bins]
    wanted = inside.copy()
    wanted[-1] += counts[bins:].sum()
    level = (np.arange(bins) * LEVELS) // bins
    held = inside > 0
    mass = np.bincount(level, inside, LEVELS)
    filled = np.bincount(level, held, LEVELS)
    given = np.where(held, (mass / np.maximum(filled, 1))[level], 0.0)
    p, q = wanted / wanted.sum(), given / max(given.sum(), 1.0)
    there = p > 0
    smallest = 1e-9
    return float((p[there] * np.log(p[there] / np.maximum(q[there], smallest))).sum())


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
    scales: ir.DataType = FLOAT,
) -> int:
    """Make a graph's linear layers compute in a format of eight bits, in place.

    Args:
        model: in fp32.
        name: rgb, event, diff, head or clip.
        thresholds: by layer, the absolute activation that becomes the format's largest number.
        form: the format.
        scales: choose scales that this type holds exactly.

    Returns:
        How many layers do.

    Raises:
        EngineError: if a layer was not calibrated.
    """
    layers = linear_layers(model.graph, name)
    rewriting = _Rewriting(model.graph, form, scales)
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

    def __init__(self, graph: ir.Graph, form: NumberFormat, held: ir.DataType) -> None:
        self._graph, self._form, self._held = graph, form, held
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
        scale = ir.tensor(held_scales(np.array(threshold / self._form.top), self._held))
        zero = ir.tensor(np.zeros((), self._form.dtype.numpy()), dtype=self._form.dtype)
        names = (f"{value.name}.scale", f"{value.name}.zero")
        return add_weight(self._graph, names[0], scale), add_weight(self._graph, names[1], zero)

    def _rounded_weight(self, before: ir.Node, value: ir.Value) -> ir.Value:
        assert value.const_value is not None
        weight, form = value.const_value.numpy(), self._form
        scales = held_scales(form.weight_scales(weight), self._held)
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


def held_scales(scales: NDArray[Any], held: ir.DataType) -> NDArray[np.float32]:
    """Scales as they will be stored; in 16 bits rounded upwards, so that no weight leaves its range."""
    if held == FLOAT:
        return scales.astype(np.float32)
    near = scales.astype(held.numpy())
    up = np.nextafter(near, np.array(np.inf, near.dtype))
    return np.where(near.astype(np.float64) < scales, up, near).astype(np.float32)


def _node(kind: str, inputs: list[ir.Value], name: str, dtype: ir.DataType | None) -> ir.Node:
    """A node whose one output has the name and the type."""
    assert dtype is not None
    node = ir.node(kind, inputs, name=f"{name}.{kind}")
    output = node.outputs[0]
    output.name, output.type = name, ir.TensorType(dtype)
    return node


INT8_TOP = 127
PAIR = 128.0
"""Largest sum of two neighbouring weights of one sign: 255 * 128 < 2**15."""


def int8_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """The scale of each output of a weight [I, O]: float32[O]."""
    whole = np.abs(weight).max(axis=0) / INT8_TOP
    even = np.concatenate([weight, np.zeros((len(weight) % 2, weight.shape[1]), weight.dtype)])
    pairs = even.reshape(-1, 2, weight.shape[1])
    sums = np.maximum(np.maximum(pairs, 0).sum(axis=1), np.maximum(-pairs, 0).sum(axis=1)).max(axis=0)
    # Two roundings may add one: 127 leaves room for them.
    scales = np.maximum(whole, sums / (PAIR - 1))
    return np.where(scales > 0, scales, 1).astype(np.float32)


def round_to_int8(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[np.int8]:
    """A weight [I, O] in steps of its scales."""
    return np.clip(np.rint(weight / scales), -INT8_TOP, INT8_TOP).astype(np.int8)


INT8 = NumberFormat("int8", ir.DataType.INT8, INT8_TOP, ("percentile", "entropy"), int8_scales, round_to_int8)


FP8_TOP = 448.0


def fp8_scales(weight: NDArray[np.float32]) -> NDArray[np.float32]:
    """One scale for a weight [I, O], float32[].

    With one for each output TensorRT for RTX 1.7 writes products to fp16 that are not scaled yet, and keeps
    the scales of both factors multiplied, in fp16, where they have few bits left (docs/decisions/0035).
    """
    largest = np.abs(weight).max()
    return np.array(largest / FP8_TOP if largest > 0 else 1, np.float32)


def round_to_fp8(weight: NDArray[np.float32], scales: NDArray[np.float32]) -> NDArray[Any]:
    """A weight [I, O] in units of its scales, to the nearest number, ties to even."""
    return np.clip(weight / scales, -FP8_TOP, FP8_TOP).astype(ir.DataType.FLOAT8E4M3FN.numpy())


FP8 = NumberFormat("fp8", ir.DataType.FLOAT8E4M3FN, FP8_TOP, ("max", "percentile"), fp8_scales, round_to_fp8)
