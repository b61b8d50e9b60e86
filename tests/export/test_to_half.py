"""fp32 graphs become fp16 and bf16 ones, and say so themselves."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from graphs_by_hand import graph, types
from velora_export.evaluation.sessions import emulate_bf16, is_bf16
from velora_export.precision.to_half import FLOAT, HALVES, to_half

from velora_edge.errors import EngineError

FP16, BF16 = HALVES["fp16"], HALVES["bf16"]

TOWER = """
    rgb (uint8[1, 2, 2] image) => (float[1, 2, 3] tokens)
    <float[2, 3] weight = {1.0, 0.5, 0.25, 0.1, 0.2, 0.3}, float[3] scale = {1.0, 1.0, 1.0},
     float[3] shift = {0.0, 0.0, 0.0}, float gray = {0.00392156862}> {
        real = Cast<to = 1>(image)
        pixels = Mul(real, gray)
        mixed = MatMul(pixels, weight)
        doubled = Add(mixed, mixed)
        tokens = LayerNormalization<axis = -1>(doubled, scale, shift)
    }
"""
HEAD = """
    head (float[1, 4, 2, 3] rgb, float[1, 4] rgb_present) => (float[1, 2] logits)
    <float[3, 3] weight = {1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0}, float half = {0.5},
     float[3, 2] last = {1.0, 2.0, 3.0, 4.0, 5.0, 6.0}, int64[1] slots = {1}, int64[2] wide = {2, 3}> {
        there = Greater(rgb_present, half)
        mask = Unsqueeze(there, wide)
        none = Sub(half, half)
        kept = Where(mask, rgb, none)
        sum = ReduceSum<keepdims = 0>(kept, slots)
        mixed = MatMul(sum, weight)
        soft = Softmax(mixed)
        pooled = ReduceMean<keepdims = 0>(soft, slots)
        logits = MatMul(pooled, last)
    }
"""


def test_layers_are_narrow_and_pixels_are_not() -> None:
    model = graph(TOWER)
    to_half(model, FP16, output=FP16)
    assert types(model) == {
        "real": "FLOAT",
        "pixels": "FLOAT",
        "pixels.float16": "FLOAT16",
        "mixed": "FLOAT16",
        "doubled": "FLOAT16",
        "tokens": "FLOAT16",
    }
    weights = {name: value.dtype for name, value in model.graph.initializers.items()}
    assert weights == {"gray": FLOAT, "weight.float16": FP16, "scale.float16": FP16, "shift.float16": FP16}


def test_tokens_can_stay_float32_under_their_name() -> None:
    model = graph(TOWER)
    to_half(model, BF16)
    assert [(value.name, value.dtype) for value in model.graph.outputs] == [("tokens", FLOAT)]
    assert types(model)["tokens.bfloat16"] == "BFLOAT16"


def test_sums_and_the_classifier_are_wide_and_rings_may_be_narrow() -> None:
    model = graph(HEAD)
    to_half(model, FP16, inputs=("rgb", "event", "diff"))
    assert [(value.name, value.dtype) for value in model.graph.inputs] == [
        ("rgb", FP16),
        ("rgb_present", FLOAT),
    ]
    found = types(model)
    assert {name: found[name] for name in ("kept", "sum", "mixed", "soft", "pooled", "logits")} == {
        "kept": "FLOAT16",
        "sum": "FLOAT",
        "mixed": "FLOAT16",
        "soft": "FLOAT16",
        "pooled": "FLOAT",
        "logits": "FLOAT",
    }


def test_layer_normalization_stays_one_node_that_computes_in_fp32() -> None:
    model = graph(TOWER)
    to_half(model, FP16)
    (norm,) = [node for node in model.graph if node.op_type == "LayerNormalization"]
    assert "stash_type" not in norm.attributes  # its default: fp32
    assert [value.dtype for value in norm.inputs if value is not None] == [FP16] * 3


def test_a_conv_stays_fp32_in_bf16_because_its_opset_has_no_other() -> None:
    text = """
        rgb (float[1, 1, 2, 2] x) => (float[1, 1, 1, 1] y) <float[1, 1, 2, 2] w = {1.0, 2.0, 3.0, 4.0}>
        { y = Conv(x, w) }
    """
    assert {half: _conv(text, half) for half in (FP16, BF16)} == {FP16: "FLOAT16", BF16: "FLOAT"}


def _conv(text: str, half: ir.DataType) -> str:
    model = graph(text)
    to_half(model, half)
    return types(model)["y.float16" if half == FP16 else "y"]


def test_a_value_without_a_type_is_refused() -> None:
    model = graph(TOWER)
    next(iter(model.graph)).outputs[0].type = None
    with pytest.raises(EngineError, match="the rgb graph does not tell the type of what"):
        to_half(model, FP16)


def _run(model: ir.Model, image: np.ndarray) -> np.ndarray:
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"image": image})[0])


def test_fp16_rounds_where_it_says_so() -> None:
    image = np.array([[[10, 200], [7, 90]]], np.uint8)
    model = graph(TOWER)
    wide = _run(model, image)
    to_half(model, FP16, output=FP16)
    tokens = _run(model, image)
    assert tokens.dtype == np.float16
    difference = np.abs(tokens.astype(np.float32) - wide).max()
    assert 0 < difference < 5e-3


def test_a_bf16_graph_on_a_cpu_is_rounded_after_every_operator() -> None:
    text = """
        rgb (float[2] x) => (float[2] y) <float[2] third = {0.33333334, 0.33333334}>
        { a = Add(x, third)  b = Cast<to = 16>(a)  c = Cast<to = 16>(third)
          d = Mul(b, c)  y = Cast<to = 1>(d) }
    """
    model = graph(text)
    assert is_bf16(model)
    emulate_bf16(model)
    x = np.array([1.0, 100.0], np.float32)
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), providers=["CPUExecutionProvider"]
    )
    # 1.3333 and 100.33 in eight bits are 1.3359375 and 100.5, a third is 0.333984375; products rounded again.
    assert session.run(None, {"x": x})[0].tolist() == [0.4453125, 33.5]


def test_a_graph_without_bf16_is_none() -> None:
    assert not is_bf16(graph(TOWER))
