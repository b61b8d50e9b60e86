"""Layers in the form that inference engines fuse; exchanged for timm's own before a model is traced.

Attention: torch's `scaled_dot_product_attention` is exported with shape arithmetic around every product, and
timm's own form splits a five-dimensional transpose. Here the scale's square root is folded into the weights
of Q and of K (in fp32, before any cast), so that it costs nothing, and no product leaves the range of fp16.

A key's bias adds the same to all of a query's products, which softmax takes away again; a value's bias goes
through attention as it is, into the bias of the projection. So only the query keeps one.

The fusion's attention asks three layers for its query, key and value; as one layer it is one product, and in
int8 its input is rounded once.

GELU: the exporter writes x * (0.5 * (1 + erf)), which ONNX Runtime does not take for a GELU;
(x * (1 + erf)) * 0.5 it does.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from timm.layers.attention import Attention
from torch import nn

from velora_edge.model.head import TokenAttention

if TYPE_CHECKING:
    from velora_edge.model.velora import VELoRA


class FusibleAttention(nn.Module):
    """What a timm Attention computes in eval mode, with two MatMuls and a Softmax and nothing around them.

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

    def forward(self, x: torch.Tensor, attn_mask: None = None, is_causal: bool = False) -> torch.Tensor:
        """Attend over [B, N, D]; timm's blocks pass no mask here."""
        B, N, _ = x.shape
        q, k, v = (part.reshape(B, N, self.heads, -1) for part in self.qkv(x).chunk(3, dim=-1))
        if not self.is_folded:
            q, k = self.q_norm(q) * self.root, self.k_norm(k) * self.root
        if self.query_bias is not None:
            q = q + self.query_bias.view(self.heads, -1)
        weights = (q.permute(0, 2, 1, 3) @ k.permute(0, 2, 3, 1)).softmax(dim=-1)
        out = (weights @ v.permute(0, 2, 1, 3)).transpose(1, 2).reshape(B, N, -1)
        projected: torch.Tensor = self.proj(self.norm(out))
        return projected


class FusibleTokenAttention(nn.Module):
    """What a TokenAttention computes, its three layers in one, the scale in the weights.

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
        elif type(layer) is TokenAttention:
            fusible = FusibleTokenAttention(layer)
        elif isinstance(layer, nn.GELU) and layer.approximate == "none":
            fusible = FusibleGelu()
        else:
            continue
        parent, _, child = name.rpartition(".")
        setattr(merged.get_submodule(parent), child, fusible)
