"""Linear layers in fp8: its numbers, its graphs, what is refused."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from graphs_by_hand import graph
from networks import tiny_config, tiny_model
from velora_export.bundle_export import Target, export_bundle
from velora_export.evaluation.sessions import random_clips
from velora_export.precision.calibration import calibrate
from velora_export.precision.linear_layers import LayerKey, linear_layers
from velora_export.precision.quantization import FP8, FP8_TOP, fp8_scales, quantise, round_to_fp8

from velora_edge.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from conftest import Exported
    from numpy.typing import NDArray

ONE = np.array(1, np.float32)
CLIPS = random_clips(tiny_config(), count=2, seed=3)


def _rounded(values: Sequence[float]) -> list[float]:
    weight = np.array([values], np.float32)
    numbers: NDArray[Any] = round_to_fp8(weight, ONE)
    return [float(number) for number in numbers[0]]


def test_values_are_rounded_to_four_significant_bits_ties_to_even() -> None:
    assert _rounded([1.0, 1.0625, 1.07, 1.1875, -17.0, 300.0]) == [1.0, 1.0, 1.125, 1.25, -16.0, 288.0]


def test_below_the_normal_numbers_lie_even_steps_down_to_zero() -> None:
    assert _rounded([2**-6, 1.5 * 2**-9, 0.5 * 2**-9, 0.6 * 2**-9]) == [2**-6, 2 * 2**-9, 0.0, 2**-9]


def test_what_is_larger_than_448_becomes_448_and_never_nan() -> None:
    assert _rounded([448.0, 463.0, 480.0, 1e30, -1e30]) == [448.0, 448.0, 448.0, 448.0, -448.0]


def test_a_weight_has_one_scale_by_its_largest_value() -> None:
    weight = np.array([[0.5, -0.25], [0.125, 896.0]], np.float32)
    assert fp8_scales(weight).tolist() == 2.0
    assert round_to_fp8(weight, fp8_scales(weight)).astype(float).tolist() == [
        [0.25, -0.125],
        [0.0625, 448],
    ]


def test_a_weight_of_zeros_has_a_scale() -> None:
    assert fp8_scales(np.zeros((4, 2), np.float32)).tolist() == 1.0


LAYER = """
    head (float[1, 2, 32] x) => (float[1, 2, 32] y) {
        product = MatMul(x, w)
        y = Add(product, bias)
    }
"""
QUERY = LayerKey(True, "head.attention.query", 0)


def _layer(largest: float = 1.0) -> ir.Model:
    weight = np.random.default_rng(3).normal(0, 0.2, (32, 32)).astype(np.float32)
    weight *= largest / np.abs(weight).max()
    weights = {"w": weight, "bias": np.ones(32, np.float32)}
    return graph(LAYER, "head/head.attention.query/MatMul", "head/head.attention.query/Add", weights=weights)


def _run(model: ir.Model, x: NDArray[np.float32]) -> NDArray[np.float32]:
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.disable_quant_qdq", "1")
    proto = ir.to_proto(model).SerializeToString()
    session = onnxruntime.InferenceSession(proto, options, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {"x": x})[0])


def test_a_layer_computes_with_rounded_factors_and_cuts_off_at_its_threshold() -> None:
    model = _layer()
    (weight,) = (layer.weight for layer in linear_layers(model.graph, "head"))
    assert weight.const_value is not None
    factors = weight.const_value.numpy()
    scale = fp8_scales(factors)
    x = np.random.default_rng(1).normal(0, 1, (1, 2, 32)).astype(np.float32)
    x[0, 0, 0] = 1000.0  # beyond the threshold
    assert quantise(model, "head", {QUERY: 4.0}, FP8) == 1
    model.graph.opset_imports[""] = 19
    step = np.float32(4.0 / FP8_TOP)
    product = (
        round_to_fp8(x, step).astype(np.float32)
        * step
        @ (round_to_fp8(factors, scale).astype(np.float32) * scale)
    )
    np.testing.assert_allclose(_run(model, x), product + 1, rtol=1e-5, atol=1e-5)
    assert round_to_fp8(x, step)[0, 0, 0] == FP8_TOP


def test_the_graph_says_fp8_on_both_sides_with_one_scale_each() -> None:
    model = _layer()
    quantise(model, "head", {QUERY: 4.0}, FP8)
    kinds = {
        name: (value.dtype.name, value.shape)
        for name, value in model.graph.initializers.items()
        if value.dtype
    }
    assert kinds == {
        "bias": ("FLOAT", ir.Shape([32])),
        "x.scale": ("FLOAT", ir.Shape([])),
        "x.zero": ("FLOAT8E4M3FN", ir.Shape([])),
        "w.fp8": ("FLOAT8E4M3FN", ir.Shape([32, 32])),
        "w.scale": ("FLOAT", ir.Shape([])),
    }
    assert [node.op_type for node in model.graph] == [
        "QuantizeLinear", "DequantizeLinear", "DequantizeLinear", "MatMul", "Add",
    ]  # fmt: skip


def test_an_export_without_clips_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--clips: fp8 takes its ranges from real clips"):
        export_bundle(
            tiny_model(), tmp_path / "m.velora", name="m", trained=False, target=Target(precision="fp8")
        )


def test_auto_tries_fp8_s_own_methods(exported: Exported) -> None:
    assert FP8.methods == ("max", "percentile")
    ranges = calibrate(exported.bundle.path, CLIPS, "auto", precision="fp8")
    assert ranges.method in FP8.methods


@pytest.mark.slow
def test_an_fp8_export_is_judged_by_its_labels_and_not_timed_on_a_cpu(tmp_path: Path) -> None:
    target = Target(precision="fp8", judged=CLIPS, calibration=CLIPS)
    bundle = export_bundle(tiny_model(), tmp_path / "m.velora", name="m", trained=True, target=target)
    manifest = bundle.manifest
    assert (manifest.precision, manifest.opset) == ("fp8", 19)
    report = manifest.report
    assert report is not None
    assert report.calibration is not None
    assert (report.calibration.floats, report.latency, report.tolerance) == ("fp16", None, 0.0)
    assert report.top1_agreement == 1.0
    assert 1e-5 < (report.relative or 0) < 0.1
