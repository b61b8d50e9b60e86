"""Compiled layers of an engine, as TensorRT prints them, and a check of the precision they compute in.

The builder of TensorRT for RTX prints them at severity VERBOSE, on a machine without a GPU too; the inspector
needs the engine in memory, and so a GPU. Both name what a layer computes of the network: `[ONNX Layer: ...]`.
"""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from velora_edge.errors import EngineError
from velora_edge.manifest import CompiledLayers

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path


DTYPES = {
    "half": "fp16",
    "fp16": "fp16",
    "float": "fp32",
    "fp32": "fp32",
    "tf32": "fp32",
    "bfloat16": "bf16",
    "bf16": "bf16",
    "int8": "int8",
    "fp8": "fp8",
    "e4m3": "fp8",
    "f8": "fp8",
}
"""Parts of TensorRT's words for a type, such as "Half" or "Row major linear FP16 format", and ours."""
BITS = {"fp32": 32, "fp16": 16, "bf16": 16, "fp8": 8, "int8": 8}
_LAYER = re.compile(r"^Name: (?P<name>.*?), LayerType: (?P<type>[^,]*), (?P<rest>.*)$", re.M)
_TENSOR = re.compile(
    r"\{ Name: [^{}]*?, Dimensions: \[(?P<shape>[\d,]*)\][^{}]*?(?:Format/)?Datatype: (?P<dtype>[^,}]*)"
)
_ONNX = re.compile(r"\[ONNX Layer: ([^\]]*)\]")


@dataclass(frozen=True, slots=True)
class LayerTensor:
    """Input or output of a layer.

    Attributes:
        shape: its dimensions.
        dtype: fp32, fp16, bf16, fp8, int8, or TensorRT's own word.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class CompiledLayer:
    """Compiled layer: one kernel of an engine.

    Attributes:
        name: TensorRT's.
        type: TensorRT's, such as gemm, kgen, runtime_fusion.
        inputs: what it reads, weights apart.
        constants: its weights, where TensorRT tells them.
        outputs: what it writes.
        onnx: names of the ONNX nodes that it computes, or a part of.
    """

    name: str
    type: str
    inputs: tuple[LayerTensor, ...]
    constants: tuple[LayerTensor, ...]
    outputs: tuple[LayerTensor, ...]
    onnx: tuple[str, ...]

    @property
    def dtype(self) -> str:
        """The type of what it multiplies: of its weight; without one, the narrowest of its inputs.

        A residual that is added in the same kernel may be wider.
        """
        weight = self._weight
        factors = self.inputs if weight is None else (weight,)
        return min((tensor.dtype for tensor in factors), key=_bits, default="")

    @property
    def _weight(self) -> LayerTensor | None:
        """The largest constant; biases and scales stand beside it."""
        matrices = [tensor for tensor in self.constants if len(tensor.shape) > 1]
        return max(matrices, key=lambda tensor: math.prod(tensor.shape), default=None)

    @property
    def is_product(self) -> bool:
        """Whether it is one matrix product or convolution, with what was fused to it."""
        kind = self.type.lower()
        return any(word in kind for word in ("gemm", "matrixmultiply", "correlation", "conv")) or (
            kind.endswith("fusion") and bool(re.search("Fc|Gemm|MatMul|Conv", self.name))
        )

    @property
    def is_attention(self) -> bool:
        """Whether it is both products of an attention and the softmax between them."""
        return "mha" in self.name.lower() or (not self.is_product and "fmha" in self.type.lower())

    @property
    def is_on_dla(self) -> bool:
        """Whether it runs on a Deep Learning Accelerator: a whole part of the network does, as one layer."""
        return "dla" in self.type.lower()

    @property
    def multiplications(self) -> int:
        """How many it makes, for an output of one."""
        if not self.inputs or not self.outputs:
            return 0
        if self.is_attention and len(self.inputs) > 1:
            return 2 * math.prod(self.inputs[0].shape) * self.inputs[1].shape[-1]
        outputs, weight = math.prod(self.outputs[0].shape), self._weight
        if weight is None:
            return outputs * self.inputs[0].shape[-1]
        is_convolution = len(weight.shape) == 4
        return outputs * (math.prod(weight.shape[1:]) if is_convolution else weight.shape[-2])


def parse_builder_list(text: str) -> list[CompiledLayer]:
    """The layers out of the builder's own list: a line a layer, after "Layers:"."""
    return [_from_line(found) for found in _LAYER.finditer(text)]


def parse_inspector(text: str) -> list[CompiledLayer]:
    """The layers out of `IEngineInspector.get_engine_information(LayerInformationFormat.JSON)`.

    A layer of which only the name was kept (an engine without detailed information) is left out.
    """
    layers = json.loads(text).get("Layers", [])
    return [_from_json(layer) for layer in layers if isinstance(layer, dict)]


def _from_line(found: re.Match[str]) -> CompiledLayer:
    rest = found["rest"]
    read, _, rest_ = rest.partition("Outputs: [")
    inputs, _, constants = read.partition("Constants: [")
    outputs, _, facts = rest_.partition("TacticName")
    return CompiledLayer(
        name=found["name"],
        type=found["type"],
        inputs=_tensors(inputs),
        constants=_tensors(constants),
        outputs=_tensors(outputs),
        onnx=tuple(_ONNX.findall(facts)),
    )


def _tensors(text: str) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(tuple(int(size) for size in found["shape"].split(",") if size), _dtype(found["dtype"]))
        for found in _TENSOR.finditer(text)
    )


def _from_json(layer: dict[str, Any]) -> CompiledLayer:
    return CompiledLayer(
        str(layer.get("Name", "")),
        str(layer.get("LayerType", "")),
        _described(layer.get("Inputs", ())),
        _described(layer.get("Constants", ())),
        _described(layer.get("Outputs", ())),
        tuple(_ONNX.findall(str(layer.get("Metadata", "")))),
    )


def _described(tensors: Sequence[dict[str, Any]]) -> tuple[LayerTensor, ...]:
    return tuple(
        LayerTensor(
            tuple(int(size) for size in tensor.get("Dimensions", ())),
            _dtype(str(tensor.get("Datatype") or tensor.get("Format/Datatype") or "")),
        )
        for tensor in tensors
    )


def _bits(dtype: str) -> int:
    """Width of a type; of one that no product has: wider than all."""
    return BITS.get(dtype, 64)


def _dtype(words: str) -> str:
    """Our name of a type; TensorRT's own word where it is none that a product has."""
    plain = words.strip().lower()
    for word in re.findall(r"[a-z]+\d*(?:m\d)?", plain):
        if word in DTYPES:
            return DTYPES[word]
    return plain


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
    """Types that a graph states.

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
    """Compare the types of the compiled layers with those that the graph states."""
    on_dla = sum(layer.is_on_dla for layer in layers)
    layers = [layer for layer in layers if not layer.is_on_dla]
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
        unfused=() if on_dla else tuple(name for name in stated.attention if name not in fused),
        fallbacks=tuple(name for layer in products for name in _fallen_back(layer, stated)),
        dla=on_dla,
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


def check_dla(graph: str, layers: Sequence[CompiledLayer]) -> None:
    """Refuse an engine for a Deep Learning Accelerator of which the GPU computes products or attention.

    What is left to the GPU may be the casts, copies and reformatting at the edges.

    Raises:
        EngineError: naming the layers, or that the inspector shows none on the accelerator.
    """
    if not any(layer.is_on_dla for layer in layers):
        raise EngineError(
            f"the {graph} engine runs on the GPU alone: its inspector shows no layer on a DLA; "
            "build without --dla, or keep it by --force"
        )
    fallen = [
        layer.name for layer in layers if not layer.is_on_dla and (layer.is_product or layer.is_attention)
    ]
    if fallen:
        raise EngineError(
            f"the {graph} engine falls back to the GPU in {_some(fallen)}; "
            "build without --dla, or keep it by --force"
        )


def _some(names: Sequence[str], most: int = 3) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
