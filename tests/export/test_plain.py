"""Layers exchanged before a model is traced compute what they stand for."""

from __future__ import annotations

import copy

import pytest
import torch
from networks import clips, tiny_model
from timm.layers.attention import Attention
from torch import nn
from velora_export.plain import PlainAttention, PlainGelu, PlainTokenAttention, simplify

from velora_edge.model.head import TokenAttention
from velora_edge.model.lora import merge

torch.set_num_threads(2)


@torch.no_grad()
@pytest.mark.parametrize("options", [{}, {"qkv_bias": True}, {"qk_norm": True, "norm_layer": nn.LayerNorm}])
def test_plain_attention_is_timm_s(options: dict[str, object]) -> None:
    torch.manual_seed(0)
    attention = Attention(24, num_heads=3, **options).eval()
    x = torch.randn(2, 7, 24)
    plain = PlainAttention(copy.deepcopy(attention))
    torch.testing.assert_close(plain(x), attention(x), atol=1e-6, rtol=1e-5)
    assert plain.is_folded == ("qk_norm" not in options)


@torch.no_grad()
def test_the_fusion_s_attention_is_one_layer_and_computes_the_same() -> None:
    torch.manual_seed(0)
    attention = TokenAttention(24)
    x = torch.randn(2, 7, 24)
    plain = PlainTokenAttention(attention)
    torch.testing.assert_close(plain(x), attention(x), atol=1e-6, rtol=1e-5)
    assert [(name, layer.weight.shape) for name, layer in plain.named_children()] == [("qkv", (72, 24))]


def test_plain_gelu_is_exact() -> None:
    x = torch.linspace(-6, 6, 101)
    torch.testing.assert_close(PlainGelu()(x), nn.functional.gelu(x), atol=1e-6, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("compat", ["none", "reference"])
def test_a_simplified_model_gives_the_same_logits(compat: str) -> None:
    merged = merge(tiny_model(compat=compat))
    plain = copy.deepcopy(merged)
    simplify(plain)
    torch.testing.assert_close(plain(*clips()), merged(*clips()), atol=1e-5, rtol=0)
    kinds = {type(module) for module in plain.modules()}
    assert {PlainAttention, PlainTokenAttention} <= kinds
    assert not {Attention, TokenAttention} & kinds
