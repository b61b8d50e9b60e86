"""Layers of a merged model in the form that inference engines fuse.

Attention: torch's `scaled_dot_product_attention` is exported with shape arithmetic around every product, and
timm's own form splits a five-dimensional transpose. Here the scale's square root is folded into the weights
of Q and of K (in fp32, before any cast), so that it costs nothing, and no product leaves the range of fp16.

Biases of attention: a key's bias adds the same to all of a query's products, which softmax takes away again;
a value's bias goes through attention as it is, into the bias of the projection. So only the query keeps one.

The fusion's attention asks three layers for its query, key and value; as one layer it is one product, and in
int8 its input is rounded once.

GELU: the exporter writes x * (0.5 * (1 + erf)), which ONNX Runtime does not recognise as a GELU;
(x * (1 + erf)) * 0.5 it does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import nn

from velora_edge.model.head import TokenAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_edge.model.velora import VELoRA


_MASKED = -1e4
"""Added before a softmax to what is masked: the exponential is zero, and fp16 can hold it."""


class FusibleAttention(nn.Module):
    """Attention of timm in eval mode, as two MatMuls and a Softmax and nothing around them.

    Args:
        attention: taken over with its weights, which are changed: give a copy.
    """

    def __init__(self, attention: Attention) -> None:
        super().__init__()
        self.heads = int(attention.num_heads)
        self.qkv, self.proj = attention.qkv, attention.proj
        self.q_norm, self.k_norm = attention.q_norm, attention.k_norm
        self.norm = attention.norm
        self.root = float(attention.scale) ** 0.5
        self.is_folded = isinstance(self.q_norm, nn.Identity) and isinstance(self.k_norm, nn.Identity)
        self.query_bias: torch.Tensor | None = None
        if self.is_folded:
            self._fold()

    @torch.no_grad()
    def _fold(self) -> None:
        rows = 2 * self.qkv.out_features // 3
        self.qkv.weight[:rows] *= self.root
        if self.qkv.bias is None:
            return
        self.qkv.bias[:rows] *= self.root
        if isinstance(self.norm, nn.Identity) and self.proj.bias is not None:
            query, _, value = self.qkv.bias.chunk(3)
            self.query_bias = nn.Parameter(query.clone(), requires_grad=False)
            self.proj.bias.add_(self.proj.weight @ value)
            self.qkv.register_parameter("bias", None)

    def forward(
        self, x: torch.Tensor, attn_mask: torch.Tensor | None = None, is_causal: bool = False
    ) -> torch.Tensor:
        """Attend over [B, N, D], to the tokens that `attn_mask`, bool [B, 1, 1, N], leaves; None: to all."""
        B, N, _ = x.shape
        q, k, v = (part.reshape(B, N, self.heads, -1) for part in self.qkv(x).chunk(3, dim=-1))
        if not self.is_folded:
            q, k = self.q_norm(q) * self.root, self.k_norm(k) * self.root
        if self.query_bias is not None:
            q = q + self.query_bias.view(self.heads, -1)
        weights = q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1)
        if attn_mask is not None:
            weights = weights + torch.where(attn_mask, 0.0, _MASKED)
        out = (weights.softmax(dim=-1) @ v.permute(0, 2, 1, 3)).transpose(1, 2).reshape(B, N, -1)
        projected: torch.Tensor = self.proj(self.norm(out))
        return projected


class FusibleRopeAttention(nn.Module):
    """Attention of timm with rotary positions, or of its class Eva, as products and sums of whole tensors.

    Class and register tokens are turned by nothing (sine 0, cosine 1), so no tensor is cut in two. Pairs
    of neighbouring channels are brought into timm's other order, halves, in the weights of Q and of K: their
    product does not depend on it.

    Args:
        attention: its weights are copied; without norms of Q and K, gate and groups of heads.
    """

    def __init__(self, attention: Any) -> None:
        super().__init__()
        self.heads, self.prefix = int(attention.num_heads), int(attention.num_prefix_tokens)
        self.is_half = bool(getattr(attention, "rotate_half", False))
        weights, biases = _qkv_of(attention)
        root = float(attention.scale) ** 0.5
        order = torch.arange(weights[0].shape[0])
        if not self.is_half:
            by_pairs = order.view(self.heads, -1, 2)
            order = by_pairs.transpose(1, 2).flatten()
        self.qkv = nn.Linear(weights[0].shape[1], 3 * len(order))
        with torch.no_grad():
            for number, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
                rows = slice(number * len(order), (number + 1) * len(order))
                is_turned = number < 2
                self.qkv.weight[rows] = weight[order] * root if is_turned else weight
                self.qkv.bias[rows] = bias[order] * root if is_turned else bias
        self.norm, self.proj = attention.norm, attention.proj

    def forward(
        self,
        x: torch.Tensor,
        rope: torch.Tensor | None = None,
        attn_mask: None = None,
        is_causal: bool = False,
    ) -> torch.Tensor:
        """Attend over [B, N, D]; timm's blocks pass no mask here."""
        B, N, _ = x.shape
        q, k, v = (part.reshape(B, N, self.heads, -1) for part in self.qkv(x).chunk(3, dim=-1))
        q, k = q.transpose(1, 2), k.transpose(1, 2)
        if rope is not None:
            sine, cosine = self._table(rope)
            q, k = self._turn(q, sine, cosine), self._turn(k, sine, cosine)
        weights = (q @ k.transpose(2, 3)).softmax(dim=-1)
        out = (weights @ v.transpose(1, 2)).transpose(1, 2).reshape(B, N, -1)
        projected: torch.Tensor = self.proj(self.norm(out))
        return projected

    def _table(self, rope: torch.Tensor) -> list[torch.Tensor]:
        """Sine and cosine [..., N, C] of all tokens, in halves."""
        table = []
        for value, still in zip(rope.chunk(2, dim=-1), (0.0, 1.0), strict=True):
            halves = value if self.is_half else torch.cat([value[..., ::2], value[..., 1::2]], dim=-1)
            before = halves.new_full((*halves.shape[:-2], self.prefix, halves.shape[-1]), still)
            table.append(torch.cat([before, halves], dim=-2))
        return table

    @staticmethod
    def _turn(x: torch.Tensor, sine: torch.Tensor, cosine: torch.Tensor) -> torch.Tensor:
        first, second = x.chunk(2, dim=-1)
        return x * cosine + torch.cat([-second, first], dim=-1) * sine


def _qkv_of(attention: Any) -> tuple[Sequence[torch.Tensor], Sequence[torch.Tensor]]:
    """Weights and biases of query, key and value, each [H * C, D] and [H * C]."""
    if attention.qkv is None:
        layers = (attention.q_proj, attention.k_proj, attention.v_proj)
        zero = torch.zeros(layers[0].out_features)
        return [layer.weight for layer in layers], [zero if x.bias is None else x.bias for x in layers]
    weights = attention.qkv.weight.chunk(3)
    if getattr(attention, "q_bias", None) is not None:
        return weights, (attention.q_bias, attention.k_bias, attention.v_bias)
    bias = attention.qkv.bias
    return weights, torch.zeros(3 * len(weights[0])).chunk(3) if bias is None else bias.chunk(3)


def _is_rope_attention(layer: nn.Module) -> bool:
    """Whether it is one of timm's attentions with rotary positions that `FusibleRopeAttention` computes."""
    kind: Any = layer
    return (
        isinstance(layer, EvaAttention | AttentionRope)
        and isinstance(layer.q_norm, nn.Identity)
        and getattr(kind, "gate", None) is None
        and getattr(kind, "num_kv_groups", 1) == 1
    )


class FusibleTokenAttention(nn.Module):
    """TokenAttention with its three layers in one, the scale in the weights.

    Args:
        attention: its weights are copied.
    """

    def __init__(self, attention: TokenAttention) -> None:
        super().__init__()
        layers, width = (attention.query, attention.key, attention.value), attention.query.in_features
        roots = (width**-0.25, width**-0.25, 1)
        self.qkv = nn.Linear(width, 3 * width)
        with torch.no_grad():
            self.qkv.weight.copy_(torch.cat([x.weight * root for x, root in zip(layers, roots, strict=True)]))
            self.qkv.bias.copy_(torch.cat([x.bias * root for x, root in zip(layers, roots, strict=True)]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Attend over [B, N, D]."""
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        attended: torch.Tensor = (q @ k.transpose(1, 2)).softmax(dim=-1) @ v
        return attended


class FusibleGelu(nn.Module):
    """The exact GELU, its factors in the order that is recognised."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """GELU of each value."""
        return (x * (1 + torch.erf(x / math.sqrt(2)))) * 0.5


def simplify(merged: VELoRA) -> None:
    """Exchange attention and GELU of a merged model, in place.

    Attention with a gate or of a kind of its own stays as it is: it is exported as timm writes it.
    """
    for name, layer in list(merged.named_modules()):
        fusible: nn.Module
        if type(layer) is Attention and getattr(layer, "gate", None) is None:
            fusible = FusibleAttention(layer)
        elif _is_rope_attention(layer):
            fusible = FusibleRopeAttention(layer)
        elif type(layer) is TokenAttention:
            fusible = FusibleTokenAttention(layer)
        elif isinstance(layer, nn.GELU) and layer.approximate == "none":
            fusible = FusibleGelu()
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, fusible)
