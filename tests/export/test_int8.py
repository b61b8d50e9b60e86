"""Linear layers become int8 products; nothing else does."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from graphs_by_hand import graph
from velora_export.precision.linear_layers import LayerKey, classifier_nodes, linear_layers
from velora_export.precision.quantization import INT8, INT8_TOP, int8_scales, quantise, round_to_int8
from velora_export.precision.to_half import HALVES

from velora_edge.errors import EngineError
from velora_edge.ort import open_session, session_options

if TYPE_CHECKING:
    from pathlib import Path

# Two layers that share their input, one product of activations, a classifier: each weight is made below.
HEAD = """
    head (float[1, 2, 32] x) => (float[1, 2] logits)
    <int64[1] tokens = {1}> {
        q = MatMul(x, wq)
        k = MatMul(x, wk)
        small = MatMul(x, lora)
        kt = Transpose<perm = [0, 2, 1]>(k)
        score = MatMul(q, kt)
        mixed = MatMul(score, q)
        pooled = ReduceMean<keepdims = 0>(mixed, tokens)
        logits = MatMul(pooled, classifier)
    }
"""
NAMES = (
    "head/head.attention.query/MatMul", "head/head.attention.key/MatMul", "head/head/MatMul",
    "head/head.attention/Transpose", "head/head.attention/MatMul", "head/head.attention/MatMul.1",
    "head/head/ReduceMean", "head/head.classifier/MatMul",
)  # fmt: skip
QUERY, KEY = (LayerKey(True, f"head.attention.{name}", 0) for name in ("query", "key"))


def _model() -> ir.Model:
    draw = np.random.default_rng(3)
    shapes = {"wq": (32, 32), "wk": (32, 32), "lora": (32, 4), "classifier": (32, 2)}
    weights = {name: draw.normal(0, 0.2, shape).astype(np.float32) for name, shape in shapes.items()}
    return graph(HEAD, *NAMES, weights=weights)


def _run(model: ir.Model, x: np.ndarray) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        ir.to_proto(model).SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return np.asarray(session.run(None, {"x": x})[0])


def test_linear_layers_are_products_with_large_weights_but_the_classifier() -> None:
    model = _model()
    layers = linear_layers(model.graph, "head")
    assert [(layer.key, layer.activation.name, layer.weight.name) for layer in layers] == [
        (QUERY, "x", "wq"),
        (KEY, "x", "wk"),
    ]
    assert sorted(node.op_type for node in classifier_nodes(model.graph)) == ["MatMul", "ReduceMean"]


def test_a_layer_that_is_called_twice_has_two_keys() -> None:
    model = _model()
    nodes = list(model.graph)
    nodes[1].name = f"{nodes[0].name}.1"
    assert [layer.key for layer in linear_layers(model.graph, "head")] == [QUERY, QUERY._replace(call=1)]


def test_a_layer_without_a_name_is_refused() -> None:
    model = _model()
    next(iter(model.graph)).name = "node_MatMul_3"
    with pytest.raises(
        EngineError, match="does not tell which layer node_MatMul_3 is; export the model again"
    ):
        linear_layers(model.graph, "head")


def test_two_layers_share_the_scale_of_their_input_and_each_weight_is_int8() -> None:
    model = _model()
    assert quantise(model, "head", {QUERY: 3.0, KEY: 3.0}, INT8) == 2
    ops = [node.op_type for node in model.graph]
    assert (ops.count("QuantizeLinear"), ops.count("DequantizeLinear"), ops.count("MatMul")) == (2, 4, 6)
    types = {name: value.dtype.name for name, value in model.graph.initializers.items() if value.dtype}
    assert types == {
        "tokens": "INT64", "lora": "FLOAT", "classifier": "FLOAT",
        "x.scale": "FLOAT", "x.zero": "INT8",
        "wq.int8": "INT8", "wq.scale": "FLOAT",
        "wk.int8": "INT8", "wk.scale": "FLOAT",
    }  # fmt: skip
    scale = model.graph.initializers["x.scale"].const_value
    assert scale is not None
    assert float(scale.numpy()) == np.float32(3.0 / INT8_TOP)


def test_the_result_is_that_of_rounded_factors() -> None:
    x = np.random.default_rng(1).normal(0, 1, (1, 2, 32)).astype(np.float32)
    model, exact = _model(), _model()
    quantise(model, "head", {QUERY: 3.0, KEY: 3.0}, INT8)
    step = np.float32(3.0 / INT8_TOP)
    rounded = (np.clip(np.rint(x / step), -128, 127) * step).astype(np.float32)
    for name in ("wq", "wk"):
        tensor = exact.graph.initializers[name].const_value
        assert tensor is not None
        weight = tensor.numpy()
        scales = int8_scales(weight)
        exact.graph.initializers[name].const_value = ir.tensor(
            round_to_int8(weight, scales) * scales, name=name
        )
    small = exact.graph.initializers["lora"]
    assert small.uses()
    np.testing.assert_allclose(_run(model, x), _run(exact, rounded), rtol=1e-3, atol=1e-3)
    assert np.abs(_run(model, x) - _run(_model(), x)).max() > 1e-4


def test_a_runtime_session_computes_a_layer_with_a_bias_in_int8(tmp_path: Path) -> None:
    text = """
        head (float[batch, 2, 32] x) => (float[batch, 2, 32] y) {
            product = MatMul(x, wq)
            y = Add(product, bias)
        }
    """
    draw = np.random.default_rng(3)
    weights = {"wq": draw.normal(0, 0.2, (32, 32)).astype(np.float32), "bias": np.ones(32, np.float32)}
    model = graph(text, NAMES[0], "head/head.attention.query/Add", weights=weights)
    assert quantise(model, "head", {QUERY: 3.0}, INT8) == 1
    assert _products(model, tmp_path) == ["MatMulIntegerToFloat"]


def test_a_runtime_session_computes_layers_with_one_input_in_int8(tmp_path: Path) -> None:
    text = """
        head (float[batch, 2, 32] x) => (float[batch, 2, 32] y) {
            q = MatMul(x, wq)
            k = MatMul(x, wk)
            y = Add(q, k)
        }
    """
    draw = np.random.default_rng(3)
    weights = {name: draw.normal(0, 0.2, (32, 32)).astype(np.float32) for name in ("wq", "wk")}
    model = graph(text, *NAMES[:2], "head/head.attention/Add", weights=weights)
    assert quantise(model, "head", {QUERY: 3.0, KEY: 3.0}, INT8) == 2
    assert _products(model, tmp_path) == ["MatMulIntegerToFloat"] * 2


def _products(model: ir.Model, folder: Path) -> list[str]:
    """What the runtime's session computes the model's products by."""
    ir.save(model, folder / "head.onnx")
    options = session_options(1)
    options.add_free_dimension_override_by_name("batch", 1)
    options.optimized_model_filepath = str(folder / "optimized.onnx")
    open_session(folder / "head.onnx", options)
    computed = [node.op_type for node in ir.load(folder / "optimized.onnx").graph]
    return sorted(kind for kind in computed if "MatMul" in kind or "Gemm" in kind)


def test_a_layer_that_was_not_calibrated_is_named() -> None:
    with pytest.raises(
        EngineError, match=r"head graph has a layer that was not calibrated: head\.attention\.key"
    ):
        quantise(_model(), "head", {QUERY: 1.0}, INT8)


def test_a_weight_s_scale_is_its_largest_value_where_neighbours_leave_room() -> None:
    weight = np.array([[1.27, 0], [0, -2.54], [0.5, 1.0], [-0.5, -1.0]], np.float32)
    np.testing.assert_allclose(int8_scales(weight), [0.01, 0.02], rtol=1e-6)
    assert round_to_int8(weight, int8_scales(weight)).tolist() == [[127, 0], [0, -127], [50, 50], [-50, -50]]


@pytest.mark.parametrize("rows", [2, 3, 64])
def test_no_pair_of_neighbours_can_leave_sixteen_bits(rows: int) -> None:
    draw = np.random.default_rng(rows)
    weight = draw.normal(0, 1, (rows, 200)).astype(np.float32)
    weight[:2, 0] = (5, 5)  # the worst: two equal largest ones
    weight[:2, 1] = (-5, -5)
    rounded = round_to_int8(weight, int8_scales(weight)).astype(np.int64)
    even = np.concatenate([rounded, np.zeros((rows % 2, 200), np.int64)]).reshape(-1, 2, 200)
    most = 255 * np.maximum(even, 0).sum(axis=1).max()
    least = 255 * np.minimum(even, 0).sum(axis=1).min()
    assert -(2**15) <= least <= most < 2**15


def test_an_output_without_weights_has_a_scale() -> None:
    assert int8_scales(np.zeros((4, 2), np.float32)).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("half", "steps"), [("fp16", 1.001), ("bf16", 1.008)])
def test_scales_for_16_bits_are_held_by_them_and_never_smaller(half: str, steps: float) -> None:
    model = _model()
    quantise(model, "head", {QUERY: 3.1, KEY: 3.1}, INT8, HALVES[half])
    exact = int8_scales(_model().graph.initializers["wq"].const_value.numpy())  # type: ignore[union-attr]
    for name, least in (("x.scale", np.float32(3.1 / INT8_TOP)), ("wq.scale", exact)):
        tensor = model.graph.initializers[name].const_value
        assert tensor is not None
        scales = tensor.numpy()
        np.testing.assert_array_equal(scales, scales.astype(HALVES[half].numpy()).astype(np.float32))
        assert (scales >= least).all()
        assert (scales <= least * steps).all()
