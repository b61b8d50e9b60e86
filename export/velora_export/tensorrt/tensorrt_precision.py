"""Whether a compiled engine computes as its graph says: types of products, fused attention, fallbacks."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_edge.manifest import CompiledLayers
from velora_export.tensorrt.tensorrt_layers import BITS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from velora_export.tensorrt.tensorrt_layers import CompiledLayer

PRODUCTS = ("Conv", "Gemm", "MatMul")
WIDE_ATTENTION = "head.attention"
"""The module of the head's last attention: one head, as wide as the tokens, which TensorRT does not fuse."""
_TYPES = {
    ir.DataType.FLOAT: "fp32",
    ir.DataType.FLOAT16: "fp16",
    ir.DataType.BFLOAT16: "bf16",
    ir.DataType.FLOAT8E4M3FN: "fp8",
    ir.DataType.INT8: "int8",
}


@dataclass(frozen=True)
class StatedTypes:
    """What a graph asks for.

    Attributes:
        products: the type of what each product multiplies, by the node's name.
        attention: names of the Softmax nodes of attention in 16 bits, which compilers fuse with the products
            around them. They fuse none in fp32.
        count: how many layers of attention there are, of any type.
    """

    products: Mapping[str, str]
    attention: tuple[str, ...]
    count: int


def read_stated_types(path: Path) -> StatedTypes:
    """The types that the graph at `path` states."""
    graph = ir.load(path).graph
    softmax = [node for node in graph if node.op_type == "Softmax"]
    return StatedTypes(
        products={str(node.name): _factor_type(node) for node in graph if node.op_type in PRODUCTS},
        attention=tuple(str(node.name) for node in softmax if _type_of(node.inputs[0]) in ("fp16", "bf16")),
        count=len(softmax),
    )


def _factor_type(node: ir.Node) -> str:
    """The type of a product's first factor: of what is dequantized for it, where it is quantized."""
    value = node.inputs[0]
    producer = None if value is None else value.producer()
    is_quantized = producer is not None and producer.op_type == "DequantizeLinear"
    return _type_of(producer.inputs[0] if is_quantized and producer is not None else value)


def _type_of(value: ir.Value | None) -> str:
    return "" if value is None or value.dtype is None else _TYPES.get(value.dtype, str(value.dtype))


def judge_layers(layers: Sequence[CompiledLayer], stated: StatedTypes) -> CompiledLayers:
    """What the compiled layers compute in, against what the graph states."""
    attention = [layer for layer in layers if layer.is_attention]
    products = [layer for layer in layers if layer.is_product and not layer.is_attention]
    arithmetic: Counter[str] = Counter()
    for layer in (*products, *attention):
        arithmetic[layer.dtype] += layer.multiplications
    whole = max(sum(arithmetic.values()), 1)
    fused = {name for layer in attention for name in layer.onnx}
    return CompiledLayers(
        products=dict(Counter(layer.dtype for layer in products)),
        arithmetic={dtype: round(count / whole, 4) for dtype, count in arithmetic.most_common()},
        attention=stated.count,
        fused=len(attention),
        unfused=tuple(name for name in stated.attention if name not in fused),
        fallbacks=tuple(name for layer in products for name in _fallen_back(layer, stated)),
    )


def _fallen_back(layer: CompiledLayer, stated: StatedTypes) -> list[str]:
    """The products that a layer computes in a wider type than the graph states."""
    bits = BITS.get(layer.dtype, 0)
    return [name for name in layer.onnx if bits > BITS.get(stated.products.get(name, ""), 64)]


def check_layers(graph: str, compiled: CompiledLayers) -> None:
    """Refuse an engine that computes in a wider type than its graph states, or a tower with slow attention.

    What becomes of the head's widest attention is told, not refused: it is small, and no graph changes it.

    Raises:
        EngineError: naming the layers.
    """
    problems = []
    fallbacks, slow = (
        [name for name in names if f"/{WIDE_ATTENTION}/" not in name]
        for names in (compiled.fallbacks, compiled.unfused)
    )
    if fallbacks:
        problems.append(f"{_some(fallbacks)} compute in a wider type than the graph states")
    if slow:
        problems.append(f"attention is not one kernel in {_some(slow)}")
    if problems:
        raise EngineError(
            f"the {graph} engine is not what was asked for: {'; '.join(problems)}; --force keeps it"
        )


def _some(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
