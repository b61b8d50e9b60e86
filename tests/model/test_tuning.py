"""What is trained, and how it is counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from networks import clips, tiny_config

from velora_edge.errors import InputError
from velora_edge.model.lora import count_parameters, set_tuning, trainable_parameters
from velora_edge.model.velora import create_model

if TYPE_CHECKING:
    from velora_edge.model.config import Tuning

torch.set_num_threads(2)

D, RANK = 48, 4
LORA_LAYER = RANK * D + RANK * 4 * D
"""Parameters of LoRA on fc1 or fc2: A and B between 48 and 192 channels."""
LINEAR = D * D + D
BLOCK = 4 * D + 4 * LINEAR + (8 * D * D + 5 * D)
"""Two norms, qkv and proj, FFN."""
TOWER = 3 * 64 * D + D + D + 17 * D + 2 * BLOCK + 2 * D
"""Patches, class token, positions, two blocks, norm."""
HEAD = LINEAR + 2 * 3 * D + 3 * 2 * D + 3 * LINEAR + (4 * D * 3 + 3)
"""E, modality and absent vectors, three norms, attention, classifier; without the two frozen blocks."""


def test_lora_trains_branches_and_head_and_is_counted_by_hand() -> None:
    counts = count_parameters(create_model(tiny_config()))
    lora = (3 * 4 + 2 * 2) * LORA_LAYER
    assert (counts.lora, counts.head) == (lora, HEAD)
    assert (counts.trained, counts.frozen) == (lora + HEAD, 3 * TOWER + 2 * BLOCK)


def test_full_tuning_freezes_nothing() -> None:
    counts = count_parameters(create_model(tiny_config(tuning="full")))
    assert counts.frozen == 0
    assert counts.trained == 3 * TOWER + 2 * BLOCK + 16 * LORA_LAYER + HEAD


def test_the_linear_probe_trains_one_layer_and_the_absent_features() -> None:
    model = create_model(tiny_config(tuning="linear"))
    names = [name for name, _ in trainable_parameters(model)]
    assert names == ["head.absent", "head.classifier.weight", "head.classifier.bias"]
    counts = count_parameters(model)
    assert (counts.trained, counts.frozen) == (6 * D * 3 + 3 + 6 * D, 3 * TOWER)


@pytest.mark.parametrize(
    ("tuning", "compat"),
    [("lora", "none"), ("full", "none"), ("linear", "none"), ("lora", "reference"), ("full", "reference")],
)
def test_every_trained_parameter_gets_a_gradient_and_no_other(tuning: Tuning, compat: str) -> None:
    torch.manual_seed(0)
    model = create_model(tiny_config(tuning=tuning, compat=compat))
    logits, reconstruction = model.train()(*clips(), with_reconstruction=True)
    (logits.square().sum() + reconstruction).backward()
    for name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name


def test_tuning_can_be_switched_between_lora_and_full() -> None:
    model = create_model(tiny_config())
    names = {name for name, _ in trainable_parameters(model)}
    set_tuning(model, "full")
    assert count_parameters(model).frozen == 0
    set_tuning(model, "lora")
    assert {name for name, _ in trainable_parameters(model)} == names


@pytest.mark.parametrize(("made", "asked"), [("lora", "linear"), ("linear", "full")])
def test_the_probe_is_a_network_of_its_own(made: Tuning, asked: Tuning) -> None:
    model = create_model(tiny_config(tuning=made))
    with pytest.raises(InputError, match=f"made for tuning={made} cannot be tuned as {asked}"):
        set_tuning(model, asked)


def test_the_published_fusion_is_trained_in_full() -> None:
    names = {name for name, _ in trainable_parameters(create_model(tiny_config(compat="reference")))}
    assert {"head.shared.attn.qkv.weight", "head.reconstruct.mlp.fc1.weight"} <= names
    assert not any(name.startswith("towers.") and "lora_" not in name for name in names)
