from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from velora_edge.train.schedule import Ema, is_fused, make_optimizer, rate_factor, set_rate, swapped
from velora_edge.train.settings import OptimSection


def test_the_rate_rises_then_falls_as_a_cosine() -> None:
    rates = [rate_factor(step, 10, 0.4, 0.0) for step in range(10)]
    assert rates == pytest.approx(
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.904508, 0.654508, 0.345492, 0.095492, 0.0], abs=1e-6
    )


def test_the_rate_ends_at_its_share_and_stays_there() -> None:
    assert [rate_factor(step, 5, 0.0, 0.1) for step in (0, 4, 7)] == pytest.approx([1.0, 0.1, 0.1])


def test_a_run_of_one_step_takes_the_peak() -> None:
    assert rate_factor(0, 1, 0.5, 0.1) == pytest.approx(1.0)


def parameters() -> dict[str, nn.Parameter]:
    return {
        "towers.rgb.lora_A.weight": nn.Parameter(torch.ones(2, 3)),
        "head.classifier.weight": nn.Parameter(torch.ones(2, 3)),
        "head.classifier.bias": nn.Parameter(torch.ones(2)),
        "head.embedding.modality": nn.Parameter(torch.ones(1, 1, 4)),
        "head.shared.lora_A.weight": nn.Parameter(torch.ones(2, 3)),
    }


def test_vectors_do_not_decay_and_the_head_has_its_own_rate() -> None:
    optimizer = make_optimizer(parameters(), OptimSection(lr=0.1, weight_decay=0.5), head_lr=0.2)
    groups = {(g["peak_lr"], g["weight_decay"]): len(g["params"]) for g in optimizer.param_groups}
    assert groups == {(0.1, 0.5): 2, (0.2, 0.5): 1, (0.2, 0.0): 2}


@pytest.mark.parametrize(
    ("devices", "settings", "expected"),
    [
        ({"cuda"}, {}, True),
        ({"cuda"}, {"precision": "bf16"}, True),
        ({"cuda"}, {"precision": "fp16"}, False),
        ({"cuda"}, {"fused": False}, False),
        ({"cpu"}, {}, False),
    ],
)
def test_one_kernel_updates_all_weights_on_a_gpu_alone(
    devices: set[str], settings: dict[str, Any], expected: bool
) -> None:
    assert is_fused(OptimSection(**settings), devices) == expected


def test_every_groups_rate_is_a_share_of_its_own_peak() -> None:
    optimizer = make_optimizer(parameters(), OptimSection(lr=0.1), head_lr=0.2)
    set_rate(optimizer, 0.5)
    assert sorted({g["lr"] for g in optimizer.param_groups}) == [0.05, 0.1]


def test_the_average_forgets_its_start_soon() -> None:
    weights = {"w": nn.Parameter(torch.zeros(1))}
    ema = Ema(weights, decay=0.9)
    weights["w"].data.fill_(1.0)
    values = []
    for _ in range(3):
        ema.update(weights)
        values.append(float(ema.weights["w"]))
    # decays 2/11, 3/12, 4/13
    assert values == pytest.approx([1 - 2 / 11, 1 - 2 / 11 * 3 / 12, 1 - 2 / 11 * 3 / 12 * 4 / 13])


def test_the_average_goes_on_from_its_state() -> None:
    weights = {"w": nn.Parameter(torch.zeros(2))}
    first, second = Ema(weights, 0.9), Ema(weights, 0.9)
    weights["w"].data.fill_(1.0)
    first.update(weights)
    second.load_state_dict(first.state_dict())
    for ema in (first, second):
        ema.update(weights)
    assert torch.equal(first.weights["w"], second.weights["w"])


def test_swapped_weights_are_put_back_after_an_error() -> None:
    weights = {"w": nn.Parameter(torch.zeros(2)), "other": nn.Parameter(torch.ones(1))}
    inside = []

    def fail() -> None:
        with swapped(weights, {"w": torch.full((2,), 5.0)}):
            inside.append(weights["w"].tolist())
            raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        fail()
    assert inside == [[5.0, 5.0]]
    assert weights["w"].tolist() == [0.0, 0.0]
    assert weights["other"].tolist() == [1.0]
