"""The fusion head exactly as the published code computes it at batch 1, for imported checkpoints.

Facts and step numbers: the published code of arXiv 2412.20064, run and traced. What it does unlike its paper
is kept on purpose here: attention of the last block over the batch (one item: its value alone), LoRA branch
outside the block and unscaled, classifier on the last ten tokens.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional

from velora_edge.model.config import default_heads
from velora_edge.model.head import Embedding, Streams, TokenAttention
from velora_edge.model.lora import lora_branch

if TYPE_CHECKING:
    from velora_edge.model.config import ModelConfig
    from velora_edge.model.tower import Tower

HEAD_TOKENS = 10


class _Norm(nn.LayerNorm):
    """LayerNorm with the published fusion's epsilon."""

    def __init__(self, width: int, **options: Any) -> None:
        super().__init__(width, eps=1e-6, **options)


def value_only_block(block: Any, x: torch.Tensor) -> torch.Tensor:
    """The block with attention over a batch of one: its softmax is 1, so each token gets its own value."""
    size = x.shape[-1]
    qkv = block.attn.qkv
    bias = None if qkv.bias is None else qkv.bias[2 * size :]
    value = functional.linear(block.norm1(x), qkv.weight[2 * size :], bias)
    x = x + block.attn.proj(value)
    out: torch.Tensor = x + block.mlp(block.norm2(x))
    return out


def outer_branch(block: Any, x: torch.Tensor) -> torch.Tensor:
    """The FFN's LoRA matrices alone, unscaled: x + B_proj A_proj act(B_fc A_fc x)."""
    hidden = block.mlp.act(lora_branch(block.mlp.fc1, x, scaled=False))
    return x + lora_branch(block.mlp.fc2, hidden, scaled=False)


class ReferenceHead(nn.Module):
    """Steps 1 to 5 of the published fusion, item by item as at batch 1.

    Args:
        config: the network's form.
        tower: one of the towers, for its sizes.
    """

    def __init__(self, config: ModelConfig, tower: Tower) -> None:
        super().__init__()
        width, heads = tower.width, config.fusion_heads or default_heads(tower.width)
        self.embedding = Embedding(tower.token_size, width)
        self.shared = Block(width, heads, qkv_bias=True, norm_layer=_Norm)
        self.reconstruct = Block(width, heads, qkv_bias=True, norm_layer=_Norm)
        self.reconstruct_norm = _Norm(width)
        self.attention = TokenAttention(width)
        self.classifier = nn.Linear(HEAD_TOKENS * width, len(config.labels))

    def fuse(self, embedded: Streams) -> torch.Tensor:
        """The fusion block over all tokens, [B, 3 N, D], in the order diff, rgb, event."""
        return cast(
            "torch.Tensor", self.shared(torch.cat([embedded.diff, embedded.rgb, embedded.event], dim=1))
        )

    def forward(self, embedded: Streams, rgb_block: nn.Module, event_block: nn.Module) -> torch.Tensor:
        """Logits [B, K] (the published output is their log-softmax) of embedded means [B, N, D]."""
        _, rgb_fused, event_fused = self.fuse(embedded).chunk(3, dim=1)
        rgb = outer_branch(rgb_block, rgb_fused) + value_only_block(rgb_block, embedded.rgb)
        event = outer_branch(event_block, event_fused) + value_only_block(event_block, embedded.event)
        rgb, event = self.attention(torch.cat([rgb, event], dim=1)).chunk(2, dim=1)
        tokens = (rgb + event)[:, -HEAD_TOKENS:]
        return cast("torch.Tensor", self.classifier(tokens.flatten(1)))

    def reconstruction(self, embedded: Streams, present: Streams) -> torch.Tensor:
        """Step 2: MSE(b(V), R) + MSE(b(R), V), over the clips that have both."""
        both = (present.rgb & present.event).to(embedded.rgb.dtype)
        from_event = self.reconstruct_norm(self.reconstruct(embedded.event)) - embedded.rgb
        from_rgb = self.reconstruct_norm(self.reconstruct(embedded.rgb)) - embedded.event
        error = (from_event.square() + from_rgb.square()).mean(dim=(1, 2))
        return (error * both).sum() / both.sum().clamp(min=1)
