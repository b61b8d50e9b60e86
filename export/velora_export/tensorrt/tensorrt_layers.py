"""Compiled layers of an engine, as TensorRT prints them: by its inspector (JSON) or by its builder (text).

The builder of TensorRT for RTX prints them at severity VERBOSE, on a machine without a GPU too; the inspector
needs the engine in memory, and so a GPU. Both name what a layer computes of the network: `[ONNX Layer: ...]`.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

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
    """What goes into a layer or comes out of it.

    Attributes:
        shape: its dimensions.
        dtype: fp32, fp16, bf16, fp8, int8, or TensorRT's own word.
    """

    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class CompiledLayer:
    """One kernel of an engine.

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
