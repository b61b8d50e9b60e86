"""A bundle of a few hundred weights with the form of a real one: five ONNX graphs, weights beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from velora_edge.bundle import BundleWriter, Manifest, Weights

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.bundle import Bundle

T, H, W, N, P, K = 3, 4, 4, 3, 5, 4
IMAGE = ["batch", H, W, 3]
Part = list[onnx.NodeProto]


def write_toy_bundle(path: Path, *, stride: int = 1, half: bool = False) -> Bundle:
    """A bundle with T = 3, images 4x4, 3 tokens of 5; a slot's size is no multiple of 256 bytes.

    Args:
        path: where it goes.
        stride: of the manifest.
        half: tokens are float16.
    """
    draw = np.random.default_rng(7)
    tokens = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    weights = {
        "tower": draw.normal(0, 0.05, (H * W * 3, N * P)).astype(np.float32),
        "head": draw.normal(0, 1, (3 * N * P, K)).astype(np.float32),
        "clip": draw.normal(0, 0.01, (T * H * W * 3, K)).astype(np.float32),
    }
    pairs = ("rgb", "rgb_before", "event", "event_before")
    with BundleWriter(path) as writer:
        for name in ("rgb", "event"):
            inputs = [helper.make_tensor_value_info("image", TensorProto.UINT8, IMAGE)]
            output = helper.make_tensor_value_info("tokens", tokens, ["batch", N, P])
            nodes = [helper.make_node("Cast", ["image"], ["pixels"], to=TensorProto.FLOAT)]
            _save(writer.folder, name, [*nodes, *_tower(tokens)], inputs, output, weights)
        inputs = [helper.make_tensor_value_info(pair, TensorProto.UINT8, IMAGE) for pair in pairs]
        output = helper.make_tensor_value_info("tokens", tokens, ["batch", N, P])
        _save(writer.folder, "diff", [*_difference(), *_tower(tokens)], inputs, output, weights)
        _save(writer.folder, "head", *_head(tokens), weights)
        _save(writer.folder, "clip", *_clip(), weights)
        return writer.finish(_manifest(stride, half=half))


def _manifest(stride: int, *, half: bool) -> Manifest:
    return Manifest(
        name="toy",
        version="0",
        labels=("a", "b", "c", "d"),
        clip_length=T,
        stride=stride,
        image_size=(H, W),
        tokens=N,
        token_size=P,
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        weights=Weights(trained=False, architecture="toy", sha256="0" * 64),
        precision="fp16" if half else "fp32",
        opset=18,
    )


def _constant(name: str, values: list[int] | list[float]) -> onnx.NodeProto:
    dtype = np.float32 if isinstance(values[0], float) else np.int64
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(np.array(values, dtype)))


def _tower(tokens: int) -> Part:
    return [
        _constant("flat", [0, -1]),
        helper.make_node("Reshape", ["pixels", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "tower"], ["mixed"]),
        helper.make_node("Sin", ["mixed"], ["curved"]),
        _constant("form", [-1, N, P]),
        helper.make_node("Reshape", ["curved", "form"], ["wide"]),
        helper.make_node("Cast", ["wide"], ["tokens"], to=tokens),
    ]


def _difference() -> Part:
    nodes = []
    for name in ("rgb", "event"):
        images = (name, f"{name}_before")
        nodes += [helper.make_node("Cast", [image], [f"{image}_f"], to=TensorProto.FLOAT) for image in images]
        nodes.append(helper.make_node("Sub", [f"{name}_f", f"{name}_before_f"], [f"{name}_d"]))
        nodes.append(helper.make_node("Abs", [f"{name}_d"], [f"{name}_a"]))
    return [*nodes, helper.make_node("Add", ["rgb_a", "event_a"], ["pixels"])]


def _head(tokens: int) -> tuple[Part, list[onnx.ValueInfoProto], onnx.ValueInfoProto]:
    """Sum of the present slots' tokens, each modality by itself, then one matrix."""
    slots = {"rgb": T, "event": T, "diff": T - 1}
    nodes = [_constant("half", [0.5]), _constant("zero", [0.0]), _constant("axes", [2, 3])]
    nodes += [_constant("over", [1]), _constant("flat", [0, -1])]
    for name in slots:
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_wide"], to=TensorProto.FLOAT),
            helper.make_node("Greater", [f"{name}_present", "half"], [f"{name}_is"]),
            helper.make_node("Unsqueeze", [f"{name}_is", "axes"], [f"{name}_here"]),
            helper.make_node("Where", [f"{name}_here", f"{name}_wide", "zero"], [f"{name}_kept"]),
            helper.make_node("ReduceSum", [f"{name}_kept", "over"], [f"{name}_sum"], keepdims=0),
            helper.make_node("Reshape", [f"{name}_sum", "flat"], [f"{name}_row"]),
        ]
    nodes.append(helper.make_node("Concat", [f"{name}_row" for name in slots], ["row"], axis=1))
    nodes.append(helper.make_node("MatMul", ["row", "head"], ["logits"]))
    inputs = [helper.make_tensor_value_info(name, tokens, ["batch", slots[name], N, P]) for name in slots]
    inputs += [
        helper.make_tensor_value_info(f"{name}_present", TensorProto.FLOAT, ["batch", slots[name]])
        for name in slots
    ]
    return nodes, inputs, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", K])


def _clip() -> tuple[Part, list[onnx.ValueInfoProto], onnx.ValueInfoProto]:
    nodes = [_constant("flat", [0, -1]), _constant("axes", [2, 3, 4])]
    for name in ("rgb", "event"):
        nodes += [
            helper.make_node("Cast", [name], [f"{name}_f"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", [f"{name}_present", "axes"], [f"{name}_here"]),
            helper.make_node("Mul", [f"{name}_f", f"{name}_here"], [f"{name}_kept"]),
        ]
    nodes += [
        helper.make_node("Add", ["rgb_kept", "event_kept"], ["both"]),
        helper.make_node("Reshape", ["both", "flat"], ["row"]),
        helper.make_node("MatMul", ["row", "clip"], ["logits"]),
    ]
    kinds = {"rgb": TensorProto.UINT8, "event": TensorProto.UINT8}
    inputs = [
        helper.make_tensor_value_info(name, kind, ["batch", T, H, W, 3]) for name, kind in kinds.items()
    ]
    inputs += [
        helper.make_tensor_value_info(f"{name}_present", TensorProto.FLOAT, ["batch", T]) for name in kinds
    ]
    return nodes, inputs, helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", K])


def _save(
    folder: Path,
    name: str,
    nodes: Part,
    inputs: list[onnx.ValueInfoProto],
    output: onnx.ValueInfoProto,
    weights: dict[str, np.ndarray],
) -> None:
    used = {tensor for node in nodes for tensor in node.input} & weights.keys()
    graph = helper.make_graph(
        nodes, name, inputs, [output], [numpy_helper.from_array(weights[key], key) for key in used]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model)
    onnx.save_model(
        model, folder / f"{name}.onnx", save_as_external_data=True, location=f"{name}.bin", size_threshold=0
    )
