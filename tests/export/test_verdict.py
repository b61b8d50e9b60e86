"""What an export may cost, and what it says when it costs more."""

from __future__ import annotations

import math
from typing import Any

import pytest
from velora_export.evaluation.parity import Parity
from velora_export.report import check_model, check_objections, find_objections, tolerance

from velora_edge.errors import EngineError
from velora_edge.manifest import Accuracy, Precision, StepLatency


def _parity(**changes: Any) -> Parity:
    figures = {"merged": 1e-6, "onnx": 2e-6, "streaming": 3e-6, "largest": 2.0, "top1_agreement": 1.0}
    return Parity(**{"source": "set.h5", "clips": 200, **figures, **changes})


def _latency(ms: float, fp32_ms: float | None) -> StepLatency:
    return StepLatency(
        runtime="r", machine="m", threads=4, steps=9, p50_ms=ms, p99_ms=ms, fp32_p50_ms=fp32_ms
    )


def _objections(parity: Parity, precision: Precision, *, trained: bool = True) -> tuple[str, ...]:
    return find_objections(parity, precision, None, trained=trained)


def test_small_differences_pass() -> None:
    check_model(_parity(onnx=9.9e-5), "fp32")
    assert _objections(_parity(onnx=9.9e-5), "fp32") == ()


@pytest.mark.parametrize("which", ["merged", "onnx", "streaming"])
@pytest.mark.parametrize("value", [1.1e-4, math.inf, math.nan])
def test_an_fp32_export_that_is_not_the_model_is_refused(which: str, value: float) -> None:
    with pytest.raises(
        EngineError, match=r"not the model: .* logits are .* away on 200 clips .set\.h5., all"
    ):
        check_model(_parity(**{which: value}), "fp32")


def test_a_wrong_merge_is_refused_in_every_precision() -> None:
    with pytest.raises(EngineError, match=r"merged logits are 0\.01 away"):
        check_model(_parity(merged=0.01), "int8")


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_numbers_that_leave_the_range_of_fp16_are_refused_with_the_precision_that_holds_them(
    value: float,
) -> None:
    with pytest.raises(EngineError, match=r"fp16 logits are no numbers .* export with --precision bf16"):
        check_model(_parity(onnx=value), "fp16")


@pytest.mark.parametrize(("precision", "share"), [("fp16", 0.02), ("bf16", 0.1)])
def test_half_precisions_are_held_to_a_share_of_the_largest_logit(precision: Precision, share: float) -> None:
    assert tolerance(precision) == share
    assert _objections(_parity(onnx=1.99 * share), precision) == ()
    (objection,) = _objections(_parity(streaming=2.1 * share), precision)
    assert objection.startswith(f"{precision} logits are {1.05 * share:.2g} of the largest one away")


def test_half_a_point_of_accuracy_may_be_lost_and_no_more() -> None:
    kept = Accuracy(clips=200, torch=0.9, exported=0.895)
    lost = Accuracy(clips=200, torch=0.9, exported=0.89)
    assert _objections(_parity(accuracy=kept), "int8") == ()
    assert _objections(_parity(accuracy=lost), "int8") == (
        "int8 loses 1.0 points of accuracy: 89.0% of 200 clips are told right, in fp32 90.0% (set.h5); "
        "allowed 0.5 points",
    )


@pytest.mark.parametrize("precision", ["int8", "fp8"])
def test_eight_bits_are_held_to_labels_and_not_to_a_share(precision: Precision) -> None:
    assert tolerance(precision) == 0
    assert _objections(_parity(onnx=0.5), precision) == ()
    (objection,) = _objections(_parity(top1_agreement=0.9), precision)
    assert objection.startswith(f"{precision} tells another label for 10.0 % of 200 clips")


def test_gained_accuracy_is_no_objection_even_where_labels_changed() -> None:
    gained = Accuracy(clips=200, torch=0.9, exported=0.91)
    assert _objections(_parity(accuracy=gained, top1_agreement=0.97), "int8") == ()


def test_without_labels_those_that_changed_count() -> None:
    assert _objections(_parity(top1_agreement=0.995), "int8") == ()
    assert _objections(_parity(top1_agreement=0.99), "int8") == (
        "int8 tells another label for 1.0 % of 200 clips without labels (set.h5); allowed 0.5 %",
    )


def test_labels_of_noise_and_of_random_weights_mean_nothing() -> None:
    assert _objections(_parity(top1_agreement=0.5, is_real=False), "fp16") == ()
    assert _objections(_parity(top1_agreement=0.5), "fp16", trained=False) == ()


def test_int8_that_is_no_faster_is_an_objection() -> None:
    slow = find_objections(_parity(), "int8", _latency(9.0, 8.0), trained=True)
    assert slow == ("int8 is no faster here: a step takes 9.0 ms, in fp32 8.0 ms (m)",)
    assert find_objections(_parity(), "int8", _latency(7.9, 8.0), trained=True) == ()
    assert find_objections(_parity(), "fp32", _latency(7.9, None), trained=True) == ()


def test_objections_refuse_unless_forced() -> None:
    with pytest.raises(EngineError, match=r"^slow; wrong; --force exports it all the same$"):
        check_objections(("slow", "wrong"), force=False)
    check_objections(("slow",), force=True)
    check_objections((), force=False)
