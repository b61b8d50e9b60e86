"""What a run is said to take, against the network itself: operations counted, and what backward keeps."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from velora_edge.config import load_config
from velora_edge.model.config import ModelConfig
from velora_edge.model.lora import count_parameters
from velora_edge.model.velora import VELoRA, create_model
from velora_edge.train.cost import (
    GPUS,
    SHARE,
    Cost,
    Gpu,
    count_macs,
    empty_model,
    estimate_cost,
    kept_bytes,
    training_flops,
)
from velora_edge.train.settings import TrainConfig

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).parents[2]
SIDE, T, CLIPS = 64, 4, 2


PLAIN = ("vit_tiny_patch16_224", {"patch_size": 8})
HYBRID = ("vit_tiny_r_s16_p8_224", {"patch_size": 2})


def config_of(
    tuning: str = "lora",
    compat: str = "none",
    dropout: float = 0.1,
    backbone: tuple[str, dict[str, Any]] = PLAIN,
    **train: Any,
) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "run": {"name": "x"},
            "data": {"path": "synthetic"},
            "model": {
                "clip_length": T,
                "image_size": [SIDE, SIDE],
                "backbone": {
                    "name": backbone[0],
                    "args": {"embed_dim": 64, "depth": 6, "num_heads": 4, **backbone[1]},
                },
                "lora": {"rank": 2, "dropout": dropout},
                "tuning": tuning,
                "compat": compat,
            },
            "train": {"batch_size": CLIPS, "reconstruction": 1.0, "precision": "fp32", **train},
        }
    )


def network(config: TrainConfig) -> VELoRA:
    torch.manual_seed(0)
    tree = config.model.model_dump(exclude_none=True)
    model = create_model(ModelConfig(**{**tree, "labels": ("a", "b")}))
    model.set_grad_checkpointing(config.train.gradient_checkpointing)
    return model.train()


def step(model: VELoRA) -> None:
    images = torch.rand(2, CLIPS, T, 3, SIDE, SIDE)
    logits, reconstruction = model(images[0], images[1], with_reconstruction=True)
    (logits.sum() + reconstruction).backward()


@pytest.fixture
def attention_by_products() -> Iterator[None]:
    """torch counts no operations of the CPU's fused attention."""
    timm.layers.set_fused_attn(False)
    yield
    timm.layers.set_fused_attn(True)


@pytest.mark.usefixtures("attention_by_products")
@pytest.mark.parametrize(
    ("tuning", "compat", "again", "backbone"),
    [
        ("lora", "none", False, PLAIN),
        ("lora", "reference", False, PLAIN),
        ("full", "none", False, PLAIN),
        ("linear", "none", False, PLAIN),
        ("lora", "none", True, PLAIN),
        ("lora", "none", False, HYBRID),
        ("full", "none", False, HYBRID),
        ("linear", "none", False, HYBRID),
    ],
)
def test_operations_of_a_step_are_those_that_torch_counts(
    tuning: str, compat: str, again: bool, backbone: tuple[str, dict[str, Any]]
) -> None:
    config = config_of(tuning, compat, backbone=backbone, gradient_checkpointing=again)
    model = network(config)
    with FlopCounterMode(display=False) as counter:
        step(model)
    expected = counter.get_total_flops() / CLIPS
    assert training_flops(config, count_macs(model)) == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize(
    ("tuning", "dropout", "backbone"),
    [
        ("lora", 0.0, PLAIN),
        ("lora", 0.1, PLAIN),
        ("full", 0.0, PLAIN),
        ("full", 0.1, PLAIN),
        ("lora", 0.1, HYBRID),
        ("full", 0.0, HYBRID),
    ],
)
def test_what_the_backward_pass_keeps_is_what_torch_saves(
    tuning: str, dropout: float, backbone: tuple[str, dict[str, Any]]
) -> None:
    config = config_of(tuning, dropout=dropout, backbone=backbone)
    model = network(config)
    weights = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        is_picture = tuple(tensor.shape[-3:]) == (3, SIDE, SIDE)
        if storage.data_ptr() not in weights and not is_picture:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        step(model)
    pictures = (3 * T - 1) * 3 * SIDE * SIDE * 4
    assert kept_bytes(config, model) - pictures == pytest.approx(sum(kept.values()) / CLIPS, rel=0.2)


def test_the_published_network_takes_what_was_counted_in_its_own_code() -> None:
    config = load_config(ROOT / "configs/pokerevent_published.yaml", TrainConfig, is_used=False)
    assert count_macs(empty_model(config)).total == pytest.approx(419e9, rel=0.02)


def test_an_estimate_makes_no_weights_and_counts_all_of_them() -> None:
    config = config_of()
    assert estimate_cost(config).parameters == count_parameters(network(config))


def test_time_follows_from_the_gpu_and_the_precision() -> None:
    counts = count_parameters(network(config_of()))
    gpu = Gpu("of 1 TFLOP a second in bf16, and a tenth in fp32", 1 / SHARE, 0.1 / SHARE, 1)
    seconds = {p: Cost(2e12, 0, 0, 1, 1, counts, p).seconds(10, gpu) for p in ("bf16", "tf32", "fp32")}
    assert seconds == pytest.approx({"bf16": 20, "tf32": 40, "fp32": 200})


@pytest.mark.parametrize(("memory_gb", "parts"), [(9, 1), (8.9, 2), (5, 2), (4.9, 4), (2, 8), (1.9, None)])
def test_a_step_is_cut_into_as_few_parts_as_the_memory_allows(memory_gb: float, parts: int | None) -> None:
    cost = Cost(1.0, 1e9, 1e9, 8, 1, count_parameters(network(config_of())), "fp32")
    assert cost.memory_bytes == 9e9
    assert cost.parts_for(Gpu("any", 1, 1, memory_gb)) == parts


@pytest.mark.slow
def test_the_guide_has_the_figures_that_are_computed() -> None:
    page = (ROOT / "docs/guides/training.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(configs/\w+\.yaml)` \| ([\d.]+) \| ([\d.]+) \| (.+) \|$", page, re.MULTILINE)
    assert len(rows) >= 4
    for name, tflop, memory_gb, minutes in rows:
        cost = estimate_cost(load_config(ROOT / name, TrainConfig, is_used=False))
        shown = [f"{cost.seconds(10_000, gpu) / 60:.1f}" for gpu in GPUS]
        assert (tflop, memory_gb, minutes.split(" | ")) == (
            f"{cost.flops / 1e12:.2f}", f"{cost.memory_bytes / 1e9:.0f}", shown,
        ), name  # fmt: skip
