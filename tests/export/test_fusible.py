"""Layers exchanged before a model is traced compute what they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import clips, tiny_model
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import nn
from velora_export.onnx.fusible import (
    FusibleAttention,
    FusibleGelu,
    FusibleRopeAttention,
    FusibleTokenAttention,
    simplify,
)

from velora_edge.model.head import TokenAttention
from velora_edge.model.lora import merge

torch.set_num_threads(2)

BIASED = {"qkv_bias": True}
OPTIONS: list[dict[str, object]] = [
    {},
    BIASED,
    {**BIASED, "proj_bias": False},
    {**BIASED, "scale_norm": True, "norm_layer": nn.LayerNorm},
    {**BIASED, "qk_norm": True, "norm_layer": nn.LayerNorm},
    {"qk_norm": True, "norm_layer": nn.LayerNorm},
]


@torch.no_grad()
@pytest.mark.parametrize("options", OPTIONS)
def test_plain_attention_is_timm_s(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    attention = Attention(24, num_heads=3, **options).eval()
    for name, parameter in attention.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    x = torch.randn(2, 7, 24)
    plain = FusibleAttention(copy.deepcopy(attention))
    torch.testing.assert_close(plain(x), attention(x), atol=1e-6, rtol=1e-5)
    assert plain.is_folded == ("qk_norm" not in options)
    keeps_all = {"qk_norm", "scale_norm"} & options.keys() or options.get("proj_bias") is False
    assert (plain.qkv.bias is None) == (not keeps_all or "qkv_bias" not in options)


ROPE_OPTIONS: list[tuple[type[nn.Module], dict[str, object]]] = [
    (AttentionRope, {}),
    (AttentionRope, {"rotate_half": True, "qkv_bias": False}),
    (AttentionRope, {"qkv_fused": False, "scale_norm": True}),
    (EvaAttention, {"scale_norm": False, "rotate_half": True}),
    (EvaAttention, {"scale_norm": False, "qkv_bias": False}),
    (EvaAttention, {"scale_norm": True, "qkv_fused": False}),
]


@torch.no_grad()
@pytest.mark.parametrize("by_head", [False, True])
@pytest.mark.parametrize(("kind", "options"), ROPE_OPTIONS)
def test_attention_with_rotary_positions_is_timm_s(
    kind: type[nn.Module], options: dict[str, object], by_head: bool
) -> None:
    torch.manual_seed(0)
    attention = kind(24, num_heads=3, num_prefix_tokens=2, norm_layer=nn.LayerNorm, **options).eval()
    for parameter in attention.parameters():
        nn.init.normal_(parameter, std=0.3)
    angles = torch.rand(*((3,) if by_head else ()), 5, 4) * 6
    half = bool(options.get("rotate_half"))
    wide = torch.cat([angles, angles], -1) if half else angles.repeat_interleave(2, -1)
    rope = torch.cat([wide.sin(), wide.cos()], dim=-1)
    x = torch.randn(2, 7, 24)
    plain = FusibleRopeAttention(copy.deepcopy(attention))
    torch.testing.assert_close(plain(x, rope=rope), attention(x, rope=rope), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(plain(x), attention(x), atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_fusion_s_attention_is_one_layer_and_computes_the_same() -> None:
    torch.manual_seed(0)
    attention = TokenAttention(24)
    x = torch.randn(2, 7, 24)
    plain = FusibleTokenAttention(attention)
    torch.testing.assert_close(plain(x), attention(x), atol=1e-6, rtol=1e-5)
    assert [(name, layer.weight.shape) for name, layer in plain.named_children()] == [("qkv", (72, 24))]


def test_plain_gelu_is_exact() -> None:
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(FusibleGelu()(x), nn.functional.gelu(x), atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("compat", ["none", "reference"])
def test_a_simplified_model_gives_the_same_logits(compat: str) -> None:
    merged = merge(tiny_model(compat=compat))
    for name, parameter in merged.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter, std=0.5)
    plain = copy.deepcopy(merged)
    simplify(plain)
    torch.testing.assert_close(plain(*clips()), merged(*clips()), atol=1e-5, rtol=0)
    kinds = {type(module) for module in plain.modules()}
    assert {FusibleAttention, FusibleTokenAttention} <= kinds
    assert not {Attention, TokenAttention} & kinds
