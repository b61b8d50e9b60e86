"""Graphs of a bundle as five torch modules, with layers in the form that inference engines fuse.

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
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from timm.layers.attention import Attention, AttentionRope
from timm.models.eva import EvaAttention
from torch import nn

from velora_edge.datatypes import MODALITIES
from velora_edge.model.active_patches import NOTHING, encode_patches
from velora_edge.model.head import Streams, TokenAttention

if TYPE_CHECKING:
    from collections.abc import Sequence

    from velora_edge.model.tower import Tower
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


class _Pixels(nn.Module):
    """uint8 images [..., H, W, 3] to normalised float32 [..., 3, H, W].

    The Cast comes first: TensorRT takes an UINT8 input into a Cast and into nothing else. Channels are moved
    before anything is multiplied: one factor for a plane is quicker than three in turn.
    """

    scale: torch.Tensor
    shift: torch.Tensor

    def __init__(self, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.register_buffer("scale", (1 / (255 * torch.tensor(std)))[:, None, None])
        self.register_buffer("shift", (-torch.tensor(mean) / torch.tensor(std))[:, None, None])

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return _channels_first(images.to(torch.float32)) * self.scale + self.shift


def _channels_first(images: torch.Tensor) -> torch.Tensor:
    return images.movedim(-1, -3)


class TowerGraph(nn.Module):
    """`image` uint8[B, H, W, 3] -> `tokens` float32[B, N, P]."""

    def __init__(self, tower: Tower, pixels: _Pixels) -> None:
        super().__init__()
        self.tower, self.pixels = tower, pixels

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Tokens of each image."""
        tokens: torch.Tensor = self.tower(self.pixels(image))
        return tokens


class ActiveTowerGraph(nn.Module):
    """`image` uint8[B, H, W, 3], `patches` int64[B, K] -> `tokens` float32[B, N, P].

    Args:
        tower: of events.
        pixels: makes its images.
        still: tokens of the patches that are not in the list, [1, N, P].
    """

    still: torch.Tensor

    def __init__(self, tower: Tower, pixels: _Pixels, still: torch.Tensor) -> None:
        super().__init__()
        self.tower, self.pixels = tower, pixels
        self.register_buffer("still", still)

    def forward(self, image: torch.Tensor, patches: torch.Tensor) -> torch.Tensor:
        """Tokens of each image."""
        return encode_patches(self.tower, self.pixels(image), patches, self.still)


class DiffGraph(nn.Module):
    """`rgb`, `rgb_before`, `event`, `event_before` uint8[B, H, W, 3] -> `tokens` float32[B, N, P].

    An absent modality is given as the same picture twice: its difference is then zero.
    """

    def __init__(self, tower: Tower, pixels: _Pixels) -> None:
        super().__init__()
        self.tower, self.pixels = tower, pixels

    def forward(
        self, rgb: torch.Tensor, rgb_before: torch.Tensor, event: torch.Tensor, event_before: torch.Tensor
    ) -> torch.Tensor:
        """Tokens of the differences |rgb - rgb_before| + |event - event_before|; the mean cancels."""
        tokens: torch.Tensor = self.tower(self.differences(rgb, rgb_before, event, event_before))
        return tokens

    def differences(self, *images: torch.Tensor) -> torch.Tensor:
        """The tower's images of the graph's."""
        rgb, rgb_before, event, event_before = (image.to(torch.float32) for image in images)
        both = (rgb - rgb_before).abs() + (event - event_before).abs()
        return _channels_first(both) * self.pixels.scale


class ActiveDiffGraph(DiffGraph):
    """The same of the patches in a list alone: `patches` int64[B, K] is one more input.

    Args:
        tower: of differences.
        pixels: makes its images.
        still: tokens of the patches that are not in the list, [1, N, P].
    """

    still: torch.Tensor

    def __init__(self, tower: Tower, pixels: _Pixels, still: torch.Tensor) -> None:
        super().__init__(tower, pixels)
        self.register_buffer("still", still)

    def forward(  # type: ignore[override]
        self,
        rgb: torch.Tensor,
        rgb_before: torch.Tensor,
        event: torch.Tensor,
        event_before: torch.Tensor,
        patches: torch.Tensor,
    ) -> torch.Tensor:
        """Tokens of the differences."""
        images = self.differences(rgb, rgb_before, event, event_before)
        return encode_patches(self.tower, images, patches, self.still)


class HeadGraph(nn.Module):
    """The three rings and a flag for each slot -> `logits` float32[B, K].

    Inputs: `rgb`, `event` float32[B, T, N, P], `diff` float32[B, T-1, N, P]; `rgb_present`, `event_present`
    float32[B, T], `diff_present` float32[B, T-1], 0 or 1. The order of the slots does not matter, and an
    absent slot may hold anything.
    """

    def __init__(self, model: VELoRA) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        diff: torch.Tensor,
        rgb_present: torch.Tensor,
        event_present: torch.Tensor,
        diff_present: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of the tokens in the slots that are present."""
        present = Streams(rgb_present > 0.5, event_present > 0.5, diff_present > 0.5)
        return self.model.decide(Streams(rgb, event, diff), present)


class ClipGraph(nn.Module):
    """Whole clips -> `logits` float32[B, K], for evaluation and parity.

    Inputs: `rgb`, `event` uint8[B, T, H, W, 3]; `rgb_present`, `event_present` float32[B, T], 0 or 1. A
    modality's difference counts only where it is present in both frames.
    """

    def __init__(self, model: VELoRA, pixels: _Pixels) -> None:
        super().__init__()
        self.model, self.pixels = model, pixels

    def forward(
        self,
        rgb: torch.Tensor,
        event: torch.Tensor,
        rgb_present: torch.Tensor,
        event_present: torch.Tensor,
    ) -> torch.Tensor:
        """Logits of whole clips."""
        logits: torch.Tensor = self.model(
            self.pixels(rgb), self.pixels(event), rgb_present > 0.5, event_present > 0.5
        )
        return logits


@dataclass(frozen=True)
class Graph:
    """One graph, ready to be traced.

    Attributes:
        module: what it computes.
        inputs: example inputs by name, batch 2; the first axis is dynamic, and the second of `patches`.
        output: name of its output.
    """

    module: nn.Module
    inputs: dict[str, torch.Tensor]
    output: str


def make_graphs(merged: VELoRA) -> dict[str, Graph]:
    """The bundle's graphs of a merged model, by name: rgb, event, diff, head, clip."""
    config = merged.config
    height, width = config.image_size
    T, batch = config.clip_length, 2
    pixels = _Pixels(config.mean, config.std)
    image = torch.zeros(batch, height, width, 3, dtype=torch.uint8)
    clip = torch.zeros(batch, T, height, width, 3, dtype=torch.uint8)
    slots = {"rgb": T, "event": T, "diff": T - 1}
    flags = {f"{m}_present": torch.ones(batch, slots[m]) for m in MODALITIES}
    rings = {m: torch.zeros(batch, slots[m], merged.tokens, merged.token_size) for m in MODALITIES}
    clip_inputs = {
        "rgb": clip,
        "event": clip.clone(),
        "rgb_present": flags["rgb_present"],
        "event_present": flags["event_present"],
    }
    pairs = {name: image.clone() for name in ("rgb", "rgb_before", "event", "event_before")}
    event: nn.Module = TowerGraph(merged.tower("event"), pixels)
    diff: nn.Module = DiffGraph(merged.tower("diff"), pixels)
    patches: dict[str, torch.Tensor] = {}
    if config.active_patches:
        merged.fix_still()
        event = ActiveTowerGraph(merged.tower("event"), pixels, merged.still["event"])
        diff = ActiveDiffGraph(merged.tower("diff"), pixels, merged.still["diff"])
        patches = {"patches": torch.tensor([[0, 1, NOTHING], [2, NOTHING, NOTHING]])}
    return {
        "rgb": Graph(TowerGraph(merged.tower("rgb"), pixels), {"image": image}, "tokens"),
        "event": Graph(event, {"image": image, **patches}, "tokens"),
        "diff": Graph(diff, {**pairs, **patches}, "tokens"),
        "head": Graph(HeadGraph(merged), {**rings, **flags}, "logits"),
        "clip": Graph(ClipGraph(merged, pixels), clip_inputs, "logits"),
    }
