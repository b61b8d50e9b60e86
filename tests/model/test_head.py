"""The fusion head: what is fed back, and where its blocks come from."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from networks import D, N, tiny_config, tiny_model
from torch import nn

from velora_edge.errors import ConfigError
from velora_edge.model.config import Backbone, LoRA
from velora_edge.model.head import Embedding, Streams, TokenAttention, fed_block
from velora_edge.model.velora import create_model

torch.set_num_threads(2)


@torch.no_grad()
def test_feedback_enters_the_ffn_through_its_lora_branch() -> None:
    block: Any = tiny_model().tower("rgb").last_block
    x, fused = torch.randn(2, 2, N, D)
    lora = block.mlp.fc1
    attended = x + block.attn(block.norm1(x))
    h, k = block.norm2(attended), block.norm2(fused)
    up, down = lora.lora_B["default"].weight, lora.lora_A["default"].weight
    hidden = lora.base_layer(h) + 2.0 * ((h + k) @ down.T) @ up.T  # alpha 8 over rank 4
    wanted = attended + fused + block.mlp.fc2(nn.functional.gelu(hidden))
    torch.testing.assert_close(fed_block(block, x, fused), wanted, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_before_training_the_fed_block_is_the_tower_s_block_with_the_fused_tokens_added() -> None:
    torch.manual_seed(0)
    block: Any = create_model(tiny_config()).eval().tower("event").last_block
    x, fused = torch.randn(2, 2, N, D)
    torch.testing.assert_close(fed_block(block, x, fused), block(x) + fused, atol=1e-5, rtol=1e-5)


def test_the_shared_blocks_start_as_the_backbone_s_last_block_with_lora_of_their_own() -> None:
    torch.manual_seed(0)
    model = create_model(tiny_config())
    tower = model.tower("rgb").last_block.state_dict()
    for block in (model.head.shared, model.head.reconstruct):
        frozen = {name: value for name, value in block.state_dict().items() if "lora_" not in name}
        assert {name for name in tower if "lora_" not in name} == set(frozen)
        assert all(torch.equal(value, tower[name]) for name, value in frozen.items())
        assert "mlp.fc1.lora_A.default.weight" in block.state_dict()


def test_fusion_needs_lora_where_it_is_fed_back() -> None:
    with pytest.raises(ConfigError, match=r"lora\.targets: must match blocks\.1\.mlp\.fc1"):
        create_model(tiny_config(lora=LoRA(targets=r"blocks\.0\.mlp\.fc[12]")))


@torch.no_grad()
def test_embedding_takes_the_absent_vector_for_every_token() -> None:
    embedding = Embedding(3, 2)
    embedding.project.weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0]]))
    embedding.modality.copy_(torch.tensor([[[10.0, 20]], [[30, 40]], [[50, 60]]]))
    embedding.absent.copy_(torch.tensor([[[1.0, 2]], [[3, 4]], [[5, 6]]]))
    means = Streams(*torch.ones(3, 1, 2, 3))
    present = Streams(torch.tensor([True]), torch.tensor([False]), torch.tensor([True]))
    rgb, event, diff = embedding(means, present)
    assert rgb.tolist() == [[[11, 21], [11, 21]]]
    assert event.tolist() == [[[33, 44], [33, 44]]]
    assert diff.tolist() == [[[51, 61], [51, 61]]]


@torch.no_grad()
def test_attention_is_scaled_by_the_root_of_the_width() -> None:
    attention = TokenAttention(8)
    x = torch.randn(2, 5, 8)
    q, k, v = attention.query(x), attention.key(x), attention.value(x)
    wanted = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1) @ v
    torch.testing.assert_close(attention(x), wanted)


@torch.no_grad()
@pytest.mark.parametrize(
    ("args", "tokens"),
    [({"class_token": False, "global_pool": "avg"}, 16), ({"reg_tokens": 4}, 21)],
    ids=["no class token", "register tokens"],
)
def test_towers_of_other_forms_are_pooled_too(args: dict[str, Any], tokens: int) -> None:
    plain = {"patch_size": 8, "embed_dim": 48, "depth": 1, "num_heads": 3}
    backbone = Backbone(name="vit_tiny_patch16_224", args={**plain, **args})
    model = create_model(tiny_config(backbone=backbone)).eval()
    assert model.tokens == tokens
    images = torch.rand(1, 4, 3, 32, 32)
    assert model(images, images).isfinite().all()
