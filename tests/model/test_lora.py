"""LoRA: where it goes, and that merging changes nothing but the number of layers."""

from __future__ import annotations

import pytest
import torch
from networks import clips, tiny_config, tiny_model
from peft.tuners.lora import Linear as LoraLinear
from torch import nn

from velora_edge.errors import ConfigError
from velora_edge.model.config import Backbone, LoRA
from velora_edge.model.lora import MergedLinear, lora_branch, merge
from velora_edge.model.velora import VELoRA, create_model

torch.set_num_threads(2)

TOWER_FFN = {f"blocks.{block}.mlp.fc{layer}" for block in (0, 1) for layer in (1, 2)}


def _lora_layers(module: nn.Module) -> set[str]:
    return {name for name, child in module.named_modules() if isinstance(child, LoraLinear)}


def test_lora_is_on_the_ffn_of_every_block_and_nowhere_else() -> None:
    model = tiny_model()
    for modality in ("rgb", "event", "diff"):
        assert _lora_layers(model.tower(modality).vit) == TOWER_FFN
    assert _lora_layers(model.head) == {f"{b}.mlp.fc{i}" for b in ("shared", "reconstruct") for i in (1, 2)}


@torch.no_grad()
@pytest.mark.parametrize("compat", ["none", "reference"])
def test_merged_equals_unmerged(compat: str) -> None:
    model = tiny_model(compat=compat)
    rgb, event = clips()
    merged = merge(model)
    torch.testing.assert_close(merged(rgb, event), model(rgb, event), atol=1e-4, rtol=0)
    images = rgb[:, 0]
    torch.testing.assert_close(merged.encode("diff", images), model.encode("diff", images), atol=1e-4, rtol=0)


@torch.no_grad()
def test_lora_makes_a_difference_that_merging_keeps() -> None:
    model = tiny_model()
    rgb, event = clips()
    merged = merge(model)(rgb, event)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            parameter.zero_()
    assert (model(rgb, event) - merged).abs().max() > 1e-2


def test_merging_leaves_plain_layers_and_the_branch_only_where_fusion_reads_it() -> None:
    merged = merge(tiny_model())
    assert _lora_layers(merged) == set()
    kept = {name for name, child in merged.named_modules() if isinstance(child, MergedLinear)}
    assert kept == {f"towers.{m}.vit.blocks.1.mlp.fc{i}" for m in ("rgb", "event", "diff") for i in (1, 2)}
    assert not any(parameter.requires_grad for parameter in merged.parameters())
    assert not any("lora" in name for name in merged.state_dict())


def test_merging_does_not_change_the_model() -> None:
    model = tiny_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    merge(model)
    after = model.state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_low_precision_weights_are_merged_in_fp32_and_cast_once() -> None:
    model = tiny_model().to(torch.bfloat16)
    layer = model.tower("rgb").vit.blocks[0].mlp.fc1
    up, down = layer.lora_B["default"].weight.float(), layer.lora_A["default"].weight.float()
    wanted = (layer.base_layer.weight.float() + 2.0 * up @ down).to(torch.bfloat16)
    merged: VELoRA = merge(model)
    assert torch.equal(merged.tower("rgb").vit.blocks[0].mlp.fc1.weight, wanted)


@torch.no_grad()
def test_the_branch_of_a_merged_layer_is_the_branch() -> None:
    model = tiny_model()
    merged = merge(model)
    x = torch.randn(3, 48)
    for scaled in (True, False):
        wanted = lora_branch(model.tower("rgb").last_block.mlp.fc1, x, scaled=scaled)
        given = lora_branch(merged.tower("rgb").last_block.mlp.fc1, x, scaled=scaled)
        torch.testing.assert_close(given, wanted, atol=1e-6, rtol=1e-5)
    assert wanted.abs().max() > 1e-3


def test_targets_that_match_nothing_are_told_with_an_example() -> None:
    with pytest.raises(
        ConfigError, match=r"lora\.targets: 'mlp\.c_fc' matches no linear layer \(there is blo"
    ):
        create_model(tiny_config(lora=LoRA(targets="mlp.c_fc")))


def test_attention_can_carry_lora_too() -> None:
    lora = LoRA(targets=r"blocks\.\d+\.(mlp\.fc[12]|attn\.(qkv|proj))")
    args = {"patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3}
    backbone = Backbone(name="vit_tiny_patch16_224", args=args)
    model = create_model(tiny_config(lora=lora, backbone=backbone))
    assert _lora_layers(model.tower("diff").vit) == {
        "blocks.0.mlp.fc1",
        "blocks.0.mlp.fc2",
        "blocks.0.attn.qkv",
        "blocks.0.attn.proj",
    }
