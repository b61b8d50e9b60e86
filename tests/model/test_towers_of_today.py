"""Towers with rotary positions, SwiGLU and timm's class Eva: tokens, LoRA, fusion; and what is refused."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import clips, tiny_config
from todays_towers import TOWERS, todays_backbone, todays_model

from velora_edge.errors import ConfigError, InputError
from velora_edge.model.config import Backbone, LoRA
from velora_edge.model.head import fed_block
from velora_edge.model.lora import merge
from velora_edge.model.tower import create_tower, repeat_rotation, run_block
from velora_edge.model.velora import create_model

torch.set_num_threads(2)

NAMES = sorted(TOWERS)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_tokens_are_those_of_timm(name: str) -> None:
    tower = create_tower(tiny_config(backbone=todays_backbone(name))).eval()
    images = torch.rand(2, 3, 32, 32)
    tokens = tower(images)
    assert tokens.shape == (2, tower.tokens, 48)
    assert tower.tokens == 16 + tower.vit.num_prefix_tokens
    torch.testing.assert_close(tokens, tower.vit.fc_norm(tower.vit.forward_features(images)))


@pytest.mark.parametrize("name", NAMES)
def test_every_trained_parameter_gets_a_gradient_and_no_other(name: str) -> None:
    torch.manual_seed(0)
    model = create_model(tiny_config(backbone=todays_backbone(name)))
    logits, reconstruction = model.train()(*clips(), with_reconstruction=True)
    (logits.square().sum() + reconstruction).backward()
    for parameter_name, parameter in model.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, parameter_name


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_before_training_the_fed_block_is_the_tower_s_with_the_fused_tokens_added(name: str) -> None:
    torch.manual_seed(0)
    tower = create_model(tiny_config(backbone=todays_backbone(name))).eval().tower("event")
    x, fused = torch.randn(2, 2, tower.tokens, 48)
    turn = tower.rotation()
    wanted = run_block(tower.last_block, x, turn) + fused
    torch.testing.assert_close(fed_block(tower.last_block, x, fused, turn), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("name", NAMES)
def test_a_merged_model_gives_the_same_logits(name: str) -> None:
    model = todays_model(name)
    torch.testing.assert_close(merge(model)(*clips()), model(*clips()), atol=2e-5, rtol=0)


@torch.no_grad()
@pytest.mark.parametrize("name", ["vit_small_patch16_dinov3", "vit_small_patch16_rope_mixed_224"])
def test_the_shared_block_turns_each_image_s_patches_and_no_class_or_register_token(name: str) -> None:
    tower = create_tower(tiny_config(backbone=todays_backbone(name))).eval()
    turn, prefix = tower.rotation(), int(tower.vit.num_prefix_tokens)
    assert turn is not None
    three = repeat_rotation(turn, prefix, 3)
    assert three is not None
    assert three.shape[-2] == 3 * tower.tokens - prefix
    second = three[..., tower.tokens : tower.tokens + 16, :]
    torch.testing.assert_close(second, turn)
    sine, cosine = three[..., 16 : 16 + prefix, :].chunk(2, dim=-1)
    torch.testing.assert_close((sine, cosine), (torch.zeros_like(sine), torch.ones_like(cosine)))


@torch.no_grad()
def test_rotation_of_the_last_block_is_the_tower_s_own() -> None:
    tower = create_tower(tiny_config(backbone=todays_backbone("vit_small_patch16_rope_mixed_224"))).eval()
    images = torch.rand(1, 3, 32, 32)
    inputs: list[torch.Tensor] = []
    handle = tower.last_block.register_forward_pre_hook(lambda _, given: inputs.append(given[0]))
    features = tower.vit.forward_features(images)
    handle.remove()
    again = tower.vit.norm(run_block(tower.last_block, inputs[0], tower.rotation()))
    torch.testing.assert_close(again, features)


@torch.no_grad()
@pytest.mark.parametrize("name", ["eva02_tiny_patch14_224", "vit_small_patch16_dinov3_qkvb"])
def test_lora_on_a_query_key_value_layer_with_biases_of_its_own_is_not_passed_by(name: str) -> None:
    lora = LoRA(targets=r"blocks\.\d+\.(attn\.qkv|mlp\.fc[12](_[gx])?)")
    model = todays_model(name, lora=lora)
    images = torch.rand(1, 3, 32, 32)
    before = model.tower("rgb")(images)
    layer: Any = model.tower("rgb").vit.blocks[0].attn.qkv
    layer.lora_B["default"].weight.mul_(1000)  # against a layer scale of 1e-5
    assert (model.tower("rgb")(images) - before).abs().max() > 1e-3


def test_a_swiglu_s_gate_without_lora_is_told() -> None:
    backbone = todays_backbone("vit_small_plus_patch16_dinov3")
    with pytest.raises(ConfigError, match=r"lora\.targets: must match blocks\.1\.mlp\.fc1_g, through which"):
        create_model(tiny_config(backbone=backbone, lora=LoRA(targets=r"blocks\.\d+\.mlp\.(fc1_x|fc2)")))


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("eva02_enormous_patch14_clip_224", {"use_post_norm": True}),
        ("beit_base_patch16_224", {}),
        ("vit_srelpos_small_patch16_224", {}),
        ("naflexvit_base_patch16_gap", {}),
        ("hiera_tiny_224", {}),
    ],
)
def test_what_is_no_tower_is_refused_with_one_line(name: str, args: dict[str, Any]) -> None:
    small = {"patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3} if "hiera" not in name else {}
    backbone = Backbone(name=name, args={**small, **args}, projection=0)
    with pytest.raises(InputError, match=r"not a plain vision transformer|timm cannot make") as caught:
        create_tower(tiny_config(backbone=backbone))
    assert "\n" not in str(caught.value)


def test_the_published_fusion_is_refused_for_a_tower_that_it_is_not_built_for() -> None:
    backbone = todays_backbone("vit_small_patch16_dinov3")
    with pytest.raises(InputError, match="compat reference is the published fusion, which vit_small"):
        create_model(tiny_config(backbone=backbone, compat="reference", image_size=(64, 64)))


def test_the_guide_lists_the_towers_that_are_tested() -> None:
    guide = (Path(__file__).parents[2] / "docs/guides/training.md").read_text(encoding="utf-8")
    table = guide.partition("<!-- tested towers -->")[2].partition("\n\n")[0]
    assert sorted(re.findall(r"`([a-z0-9_]+)`", table)) == NAMES
