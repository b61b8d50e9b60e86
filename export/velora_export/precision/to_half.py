"""Conversion of an fp32 graph to fp16 or bf16, by types that the graph itself states.

What stays fp32, because it sums many values or because nothing is gained: the pixels up to the first layer,
the means over a clip and over tokens, the classifier, and what comes out of an int8 product whose outputs
have a scale each. A value is rounded where a layer with weights takes it in; between layers everything keeps
the type that it comes in. LayerNormalization stays one node, which computes mean and variance in fp32 (its
`stash_type`) whatever comes in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_export.precision.linear_layers import classifier_nodes

if TYPE_CHECKING:
    from collections.abc import Collection

FLOAT = ir.DataType.FLOAT
HALVES = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}

LAYERS = frozenset({"Conv", "Gemm", "LayerNormalization", "MatMul"})
"""Their inputs are rounded."""
SUMS = frozenset({"ReduceMean", "ReduceSum"})
"""Their inputs are widened."""
NO_SUCH_KERNEL = (ir.DataType.BFLOAT16, "Conv")
"""Opset 22 is the first with a Conv in bf16: the patches, 1 % of a tower's work, stay fp32."""


def to_half(
    model: ir.Model, half: ir.DataType, *, inputs: Collection[str] = (), output: ir.DataType = FLOAT
) -> None:
    """Change the types of a graph in place.

    Args:
        model: in fp32, with the type of every value; its weights are rounded in memory.
        half: FLOAT16 or BFLOAT16.
        inputs: the graph's inputs that are to be of that type too.
        output: type of the graph's output.

    Raises:
        EngineError: if a value's type is not known.
    """
    graph = model.graph
    for node in graph:
        if any(value.dtype is None for value in node.outputs):
            raise EngineError(f"the {graph.name} graph does not tell the type of what {node.name} gives")
    for value in graph.inputs:
        if value.name in inputs:
            value.dtype = half
    _Narrowing(graph, half).run(output)


class _Narrowing:
    """One graph while its types change, with what was made for which value."""

    def __init__(self, graph: ir.Graph, half: ir.DataType) -> None:
        self._graph, self._half = graph, half
        self._wide = classifier_nodes(graph)
        self._casts: dict[tuple[ir.Value, ir.DataType], ir.Value] = {}
        self._weights: dict[ir.Value, ir.Value] = {}

    def run(self, output: ir.DataType) -> None:
        for node in list(self._graph):
            wanted = self._type_of(node)
            for index, value in enumerate(node.inputs):
                if value is not None and self._is_real(value) and value.dtype != wanted:
                    node.replace_input_with(index, self._as(value, wanted))
            if node.op_type != "Cast":  # a Cast says itself what it gives: pixels and flags become fp32
                for value in filter(self._is_real, node.outputs):
                    value.dtype = wanted
            if _has_scale_per_output(node):
                self._round_product(node.outputs[0])
        (last,) = self._graph.outputs
        if last.dtype != output:
            self._graph.outputs[0] = self._renamed(last, output)
        for name in [name for name, weight in self._graph.initializers.items() if not weight.uses()]:
            self._graph.initializers.pop(name)

    def _is_real(self, value: ir.Value) -> bool:
        return value.dtype in (FLOAT, self._half)

    def _is_weight(self, value: ir.Value) -> bool:
        return value.name in self._graph.initializers

    def _type_of(self, node: ir.Node) -> ir.DataType:
        if node in self._wide or node.op_type in SUMS or (self._half, node.op_type) == NO_SUCH_KERNEL:
            return FLOAT
        products = (
            [user for user, _ in node.outputs[0].uses()] if node.op_type == "DequantizeLinear" else [node]
        )
        if any(map(_has_scale_per_output, products)):
            return FLOAT
        flowing = [v for v in node.inputs if v is not None and self._is_real(v) and not self._is_weight(v)]
        is_wide = node.op_type not in LAYERS and any(value.dtype == FLOAT for value in flowing)
        return FLOAT if is_wide else self._half

    def _as(self, value: ir.Value, wanted: ir.DataType) -> ir.Value:
        """The value in another type: a weight is rounded now, anything else gets one Cast for all users."""
        if self._is_weight(value):
            if value not in self._weights:
                self._weights[value] = self._rounded(value)
            return self._weights[value]
        if (value, wanted) not in self._casts:
            self._casts[value, wanted] = self._cast(value, wanted, f"{value.name}.{wanted.name.lower()}")
        return self._casts[value, wanted]

    def _rounded(self, weight: ir.Value) -> ir.Value:
        assert weight.const_value is not None
        array = weight.const_value.numpy().astype(self._half.numpy())
        return add_weight(self._graph, f"{weight.name}.{self._half.name.lower()}", ir.tensor(array))

    def _round_product(self, value: ir.Value) -> None:
        """Give the users of an fp32 product the value in 16 bits."""
        users = list(value.uses())
        rounded = self._as(value, self._half)
        for user, index in users:
            user.replace_input_with(index, rounded)

    def _cast(self, value: ir.Value, wanted: ir.DataType, name: str) -> ir.Value:
        cast = ir.node("Cast", [value], {"to": int(wanted)}, name=f"{name}.cast")
        made = cast.outputs[0]
        made.name, made.shape, made.type = name, value.shape, ir.TensorType(wanted)
        producer = value.producer()
        if producer is None:
            self._graph.insert_before(self._graph[0], cast)
        else:
            self._graph.insert_after(producer, cast)
        return made

    def _renamed(self, value: ir.Value, output: ir.DataType) -> ir.Value:
        """The graph's output in another type, under its own name."""
        name = str(value.name)
        value.name = f"{name}.{self._half.name.lower()}"
        return self._cast(value, output, name)


def _has_scale_per_output(node: ir.Node) -> bool:
    """Whether a node is a quantised product whose outputs have a scale each.

    TensorRT multiplies such a product by its scales in the kernel behind it: the sums that lie between are in
    units of the scales, tens of thousands and more, where fp16 ends (docs/decisions/0036).
    """
    if node.op_type != "MatMul" or node.inputs[1] is None:
        return False
    weight = node.inputs[1].producer()
    return weight is not None and weight.op_type == "DequantizeLinear" and "axis" in weight.attributes


def add_weight(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """A new weight of the graph."""
    kind, shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape.numpy())
    value = ir.Value(name=name, type=kind, shape=shape, const_value=tensor)
    graph.register_initializer(value)
    return value
