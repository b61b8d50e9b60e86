"""Fusion head: from the tokens of three towers, averaged over the clip, to logits; and the published one.

Facts and step numbers: the published code of arXiv 2412.20064, run and traced. What it does unlike its paper
is kept on purpose here: attention of the last block over the batch (one item: its value alone), LoRA branch
outside the block and unscaled, classifier on the last ten tokens.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import torch
from timm.models.vision_transformer import Block
from torch import nn
from torch.nn import functional

from velora_edge.errors import ConfigError
from velora_edge.model.config import default_heads
from velora_edge.model.lora import MergedLinear, add_lora, lora_branch
from velora_edge.model.tower import attend, feed_forward, first_layers, repeat_rotation, run_block

if TYPE_CHECKING:
    from velora_edge.model.config import ModelConfig
    from velora_edge.model.tower import Tower


class Streams(NamedTuple):
    """One value for each modality, in the order of `velora_edge.datatypes.MODALITIES`."""

    rgb: torch.Tensor
    event: torch.Tensor
    diff: torch.Tensor


class Embedding(nn.Module):
    """E: tokens of all towers to the fusion's width, with a learned vector for each modality.

    E is linear, so it commutes with the mean over time and is applied to the mean. A modality that is absent
    from the whole clip is replaced by a learned embedding, the same for all its tokens.

    Args:
        token_size: P.
        width: D.
    """

    def __init__(self, token_size: int, width: int) -> None:
        super().__init__()
        self.project = nn.Linear(token_size, width)
        self.modality = nn.Parameter(torch.zeros(3, 1, width))
        self.absent = nn.Parameter(torch.zeros(3, 1, width))
        nn.init.trunc_normal_(self.modality, std=0.02)
        nn.init.trunc_normal_(self.absent, std=0.02)
        nn.init.zeros_(self.project.bias)
        if token_size == width:
            nn.init.eye_(self.project.weight)  # the blocks behind it know tokens of the backbone's own basis
        else:
            nn.init.orthogonal_(self.project.weight)

    def forward(self, means: Streams, present: Streams) -> Streams:
        """Embed means [B, N, P] where `present`, bool [B], says that there is one: [B, N, D] each."""
        embedded = [
            torch.where(there[:, None, None], self.project(mean), absent) + modality
            for mean, there, absent, modality in zip(means, present, self.absent, self.modality, strict=True)
        ]
        return Streams(*embedded)


class TokenAttention(nn.Module):
    """Single-head self-attention with biases and without an output layer, scaled by the root of the width."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend over [B, N, D]."""
        root = x.shape[-1] ** -0.25
        weights = (self.query(x) * root) @ (self.key(x) * root).transpose(1, 2)
        return cast("torch.Tensor", weights.softmax(dim=-1) @ self.value(x))


def fed_block(
    block: Any, x: torch.Tensor, feedback: torch.Tensor, rotation: torch.Tensor | None = None
) -> torch.Tensor:
    """A tower's block on `x`, with the fused tokens fed into its FFN through the FFN's own LoRA branch.

    The branch of the FFN's first layer reads norm(x') + norm(feedback) where the frozen weight reads norm(x')
    alone; x' is x after attention. The fused tokens are also added to the result, so that they are heard
    before the branch has learned anything (its B starts at zero).

    Args:
        block: the tower's last block; the first layers of its FFN carry LoRA, or have it merged.
        x: the modality's own tokens, [B, N, D].
        feedback: its tokens out of the shared block, [B, N, D].
        rotation: rotary positions of the tokens, where the tower has them.
    """
    x = attend(block, x, rotation)
    fed = block.norm2(feedback)
    return (
        x + feedback + feed_forward(block, x, lambda layer, normed: layer(normed) + lora_branch(layer, fed))
    )


class VeloraHead(nn.Module):
    """The fusion as the paper draws it, with the choices that the published code leaves to be mended.

    1. Embed the three means (rgb R, event V, diff F).
    2. `shared`: a copy of the backbone's last block, frozen, with LoRA of its own (modality-shared tuning),
       on the tokens of F, R and V together; what it gives for R and V is fed back into their last blocks.
    3. Self-attention over both modalities' tokens, with norm and residual.
    4. Classifier on the class token and the mean of the patch tokens of both.

    Args:
        config: the network's form.
        tower: one of the towers, already with its weights and without LoRA: its last block is copied.
    """

    def __init__(self, config: ModelConfig, tower: Tower) -> None:
        super().__init__()
        self.prefix = int(tower.vit.num_prefix_tokens)
        self.has_class_token = tower.has_class_token
        self.embedding = Embedding(tower.token_size, tower.width)
        self.shared = _copy_with_lora(tower.last_block, config)
        self.reconstruct = _copy_with_lora(tower.last_block, config)
        self.reconstruct_norm = nn.LayerNorm(tower.width)
        self.attention_norm = nn.LayerNorm(tower.width)
        self.attention = TokenAttention(tower.width)
        self.norm = nn.LayerNorm(tower.width)
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(4 * tower.width, len(config.labels))
        nn.init.trunc_normal_(self.classifier.weight, std=0.02)
        nn.init.zeros_(self.classifier.bias)

    def fuse(self, embedded: Streams, rotation: torch.Tensor | None = None) -> torch.Tensor:
        """The shared block over all tokens, [B, 3 N, D], in the order diff, rgb, event."""
        tokens = torch.cat([embedded.diff, embedded.rgb, embedded.event], dim=1)
        return run_block(self.shared, tokens, repeat_rotation(rotation, self.prefix, 3))

    def forward(self, embedded: Streams, rgb: Tower, event: Tower) -> torch.Tensor:
        """Logits [B, K] of embedded means [B, N, D]; the fusion goes through the towers' last blocks."""
        turn, event_turn = rgb.rotation(), event.rotation()
        _, rgb_fused, event_fused = self.fuse(embedded, turn).chunk(3, dim=1)
        rgb_tokens = fed_block(rgb.last_block, embedded.rgb, rgb_fused, turn)
        event_tokens = fed_block(event.last_block, embedded.event, event_fused, event_turn)
        tokens = torch.cat([rgb_tokens, event_tokens], dim=1)
        tokens = self.norm(tokens + self.attention(self.attention_norm(tokens)))
        features = torch.cat([self._pool(part) for part in tokens.chunk(2, dim=1)], dim=1)
        logits: torch.Tensor = self.classifier(self.dropout(features))
        return logits

    def _pool(self, tokens: torch.Tensor) -> torch.Tensor:
        mean = tokens[:, self.prefix :].mean(dim=1)
        return torch.cat([tokens[:, 0] if self.has_class_token else mean, mean], dim=1)

    def reconstruction(self, embedded: Streams, present: Streams, rgb: Tower) -> torch.Tensor:
        """How badly each modality is told from the other: mean square errors, summed; a scalar, for training.

        Clips that lack a modality do not count.
        """
        both, turn = (present.rgb & present.event).to(embedded.rgb.dtype), rgb.rotation()
        told_rgb, told_event = (
            self.reconstruct_norm(run_block(self.reconstruct, tokens, turn))
            for tokens in (embedded.event, embedded.rgb)
        )
        from_event, from_rgb = told_rgb - embedded.rgb, told_event - embedded.event
        error = (from_event.square() + from_rgb.square()).mean(dim=(1, 2))
        return (error * both).sum() / both.sum().clamp(min=1)


def _copy_with_lora(block: nn.Module, config: ModelConfig) -> nn.Module:
    copied = copy.deepcopy(block)
    add_lora(copied, config.lora, config.lora.shared_targets, key="lora.shared_targets")
    return copied


def check_feedback(tower: Tower) -> None:
    """Make sure that the fusion can be fed back.

    Raises:
        ConfigError: if a first layer of the last block's FFN carries no LoRA.
    """
    last = len(tower.vit.blocks) - 1
    bare = [
        f"blocks.{last}.{name}"
        for name, layer in first_layers(tower.last_block).items()
        if not hasattr(layer, "lora_A") and not isinstance(layer, MergedLinear)
    ]
    if bare:
        raise ConfigError(
            [f"lora.targets: must match {' and '.join(bare)}, through which the fusion is fed back"]
        )


class ProbeHead(nn.Module):
    """The linear probe: one linear layer on class and mean tokens of the three frozen towers, no fusion."""

    def __init__(self, config: ModelConfig, tower: Tower) -> None:
        super().__init__()
        self.prefix = int(tower.vit.num_prefix_tokens)
        self.has_class_token = tower.has_class_token
        size = 2 * tower.token_size
        self.norm = nn.LayerNorm(size, elementwise_affine=False)
        self.absent = nn.Parameter(torch.zeros(3, size))
        self.dropout = nn.Dropout(config.head_dropout)
        self.classifier = nn.Linear(3 * size, len(config.labels))
        nn.init.zeros_(self.classifier.bias)

    def embedding(self, means: Streams, present: Streams) -> Streams:
        """Class and mean tokens of each mean [B, N, P], normed; the absent embedding where there is none."""
        return self.embed_pooled(Streams(*map(self.pool, means)), present)

    def pool(self, tokens: torch.Tensor) -> torch.Tensor:
        """Class and mean tokens [B, 2 P] of tokens [B, N, P]."""
        mean = tokens[:, self.prefix :].mean(dim=1)
        return torch.cat([tokens[:, 0] if self.has_class_token else mean, mean], dim=1)

    def embed_pooled(self, pooled: Streams, present: Streams) -> Streams:
        """Pooled tokens [B, 2 P], normed; the absent embedding where `present`, bool [B], is false."""
        embedded = [
            torch.where(there[:, None], self.norm(features), absent)
            for features, there, absent in zip(pooled, present, self.absent, strict=True)
        ]
        return Streams(*embedded)

    def forward(self, embedded: Streams, rgb: Tower, event: Tower) -> torch.Tensor:
        """Logits [B, K]; the towers are not used."""
        logits: torch.Tensor = self.classifier(self.dropout(torch.cat(embedded, dim=1)))
        return logits

    def reconstruction(self, embedded: Streams, present: Streams, rgb: Tower) -> torch.Tensor:
        """Zero: there is nothing to reconstruct."""
        return embedded.rgb.new_zeros(())


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

    def forward(self, embedded: Streams, rgb: Tower, event: Tower) -> torch.Tensor:
        """Logits [B, K] (the published output is their log-softmax) of embedded means [B, N, D]."""
        _, rgb_fused, event_fused = self.fuse(embedded).chunk(3, dim=1)
        blocks = rgb.last_block, event.last_block
        rgb_tokens = outer_branch(blocks[0], rgb_fused) + value_only_block(blocks[0], embedded.rgb)
        event_tokens = outer_branch(blocks[1], event_fused) + value_only_block(blocks[1], embedded.event)
        attended = self.attention(torch.cat([rgb_tokens, event_tokens], dim=1)).chunk(2, dim=1)
        tokens = (attended[0] + attended[1])[:, -HEAD_TOKENS:]
        return cast("torch.Tensor", self.classifier(tokens.flatten(1)))

    def reconstruction(self, embedded: Streams, present: Streams, rgb: Tower) -> torch.Tensor:
        """Step 2: MSE(b(V), R) + MSE(b(R), V), over the clips that have both."""
        both = (present.rgb & present.event).to(embedded.rgb.dtype)
        from_event = self.reconstruct_norm(self.reconstruct(embedded.event)) - embedded.rgb
        from_rgb = self.reconstruct_norm(self.reconstruct(embedded.rgb)) - embedded.event
        error = (from_event.square() + from_rgb.square()).mean(dim=(1, 2))
        return (error * both).sum() / both.sum().clamp(min=1)
