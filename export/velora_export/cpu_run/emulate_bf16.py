"""A bf16 graph for a CPU: computed in fp32, every result rounded to bf16, as a GPU's own kernels do.

ONNX Runtime has no bf16 kernels for a CPU. What is compared with torch at export is this twin, whose values
are those of the graph itself but for the order in which a product's sum is formed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import onnx_ir as ir

if TYPE_CHECKING:
    from collections.abc import Sequence

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.BFLOAT16


def is_bf16(model: ir.Model) -> bool:
    """Whether a graph computes in bf16."""
    return any(value.dtype == HALF for node in model.graph for value in node.outputs)


def is_fp8(model: ir.Model) -> bool:
    """Whether a graph's linear layers compute in fp8."""
    fp8 = ir.DataType.FLOAT8E4M3FN
    return any(value.dtype == fp8 for node in model.graph for value in node.outputs)


def emulate_bf16(model: ir.Model) -> None:
    """Change a bf16 graph in place: fp32 everywhere, but rounded to bf16 wherever it was bf16."""
    graph = model.graph
    for node in list(graph):
        rounds = node.op_type == "Cast"
        for value in [value for value in node.outputs if value.dtype == HALF]:
            users = list(value.uses())
            down = node if rounds else _cast(value, HALF)
            up = _cast(down.outputs[0], FLOAT)
            if not rounds:
                value.dtype = FLOAT
                graph.insert_after(node, down)
            graph.insert_after(down, up)
            _feed(users, up)
    for weight in [value for value in graph.initializers.values() if value.dtype == HALF]:
        users = list(weight.uses())
        up = _cast(weight, FLOAT)
        graph.insert_before(graph[0], up)
        _feed(users, up)


def _cast(value: ir.Value, kind: ir.DataType) -> ir.Node:
    name = f"{value.name}.{kind.name.lower()}"
    cast = ir.node("Cast", [value], {"to": int(kind)}, name=name)
    made = cast.outputs[0]
    made.name, made.shape, made.type = name, value.shape, ir.TensorType(kind)
    return cast


def _feed(users: Sequence[tuple[ir.Node, int]], cast: ir.Node) -> None:
    for user, index in users:
        user.replace_input_with(index, cast.outputs[0])
