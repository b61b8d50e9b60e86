"""Tower: a timm vision transformer that keeps all its tokens."""

from __future__ import annotations

import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from timm.layers.mlp import Mlp
from timm.models.vision_transformer import Block, VisionTransformer, checkpoint_filter_fn
from torch import nn

from velora_edge.errors import BundleError, InputError

if TYPE_CHECKING:
    from velora_edge.model.config import Backbone, ModelConfig


class Tower(nn.Module):
    """Images to tokens: patches, blocks, norm on all tokens, then timm's head where it is a projection.

    Attributes:
        vit: the timm model, its own API untouched.
        tokens: tokens for an image, N, class and register tokens included.
        width: size of a token inside the blocks, D.
        token_size: size of a token that comes out, P.
        has_class_token: whether token 0 is the class token.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit
        self.width = int(vit.embed_dim)
        self.token_size = int(vit.head.out_features) if isinstance(vit.head, nn.Linear) else self.width
        self.tokens = int(vit.patch_embed.num_patches + vit.num_prefix_tokens)
        self.has_class_token = bool(vit.has_class_token)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens [B, N, P] of normalised images [B, 3, H, W]."""
        tokens: torch.Tensor = self.vit.fc_norm(self.vit.forward_features(images))
        return cast("torch.Tensor", self.vit.head(tokens))

    @property
    def last_block(self) -> Any:
        """The timm Block that the fusion is fed back into."""
        return self.vit.blocks[-1]


def create_tower(config: ModelConfig) -> Tower:
    """A new tower with the weights that the configuration asks for, random where it asks for none.

    Raises:
        InputError: if timm has no such model, or it is not a vision transformer of the plain form.
        BundleError: if the weights' file is missing or of another model.
    """
    backbone = config.backbone
    vit = _create_vit(backbone, config.image_size)
    if backbone.weights is not None:
        load_tower_weights(vit, backbone.weights)
    # It pools tokens into one; all are kept here, and it would never get a gradient.
    vit.attn_pool = cast("Any", None)
    return Tower(vit)


def _create_vit(backbone: Backbone, image_size: tuple[int, int]) -> VisionTransformer:
    if not timm.is_model(backbone.name.split(".")[0]):
        close = ", ".join(timm.list_models(f"*{backbone.name.split('.')[0][:12]}*")[:3])
        raise InputError(
            f"timm has no model {backbone.name}",
            place="backbone.name",
            remedy=f"try one of: {close}" if close else "list them with timm.list_models('vit*')",
        )
    if backbone.pretrained:
        _check_hub(backbone.name)
    arguments: dict[str, Any] = {
        "num_classes": _projection(backbone),
        "img_size": image_size,
        **backbone.args,
    }
    try:
        vit = timm.create_model(backbone.name, pretrained=backbone.pretrained, **arguments)
    except Exception as error:  # timm checks its arguments by assert; its hub raises types of its own
        reason = str(error).strip().splitlines()
        raise InputError(
            f"timm cannot make {backbone.name}: {reason[0] if reason else type(error).__name__}",
            place="backbone",
            remedy="check backbone.args and image_size"
            + (", or give the weights as a local file in backbone.weights" if backbone.pretrained else ""),
        ) from error
    if not isinstance(vit, VisionTransformer) or not _is_plain(vit.blocks[-1]):
        raise InputError(
            f"{backbone.name} is not a plain vision transformer (timm VisionTransformer, Block with Mlp)",
            place="backbone.name",
            remedy="choose a vit_*, deit_* or CLIP tower",
        )
    return vit


HUB_TIMEOUT_S = 4.0


def _check_hub(name: str) -> None:
    """Refuse at once what the hub's client would try for a minute.

    Raises:
        InputError: if the weights are not in its cache, and nobody answers at the hub.
    """
    from huggingface_hub import constants

    published = timm.get_pretrained_cfg(name)
    hub_id = getattr(published, "hf_hub_id", None)
    if not hub_id or getattr(published, "file", None):
        return
    cached = Path(constants.HF_HUB_CACHE) / f"models--{str(hub_id).replace('/', '--')}" / "snapshots"
    if cached.is_dir() and any(cached.iterdir()):
        return
    reason = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else _why_no_answer(constants.ENDPOINT)
    if reason is not None:
        raise InputError(
            f"the weights of {name} are not in the cache, and {constants.ENDPOINT} is out of reach: {reason}",
            place="backbone.pretrained",
            remedy=f"fetch {hub_id} where there is a network, and give the file in backbone.weights, "
            "in place of pretrained",
        )


def _why_no_answer(address: str) -> str | None:
    request = urllib.request.Request(address, method="HEAD")  # by way of the proxies of the environment
    try:
        urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S).close()
    except urllib.error.HTTPError:
        return None  # an answer, too
    except (OSError, ValueError) as error:
        return str(getattr(error, "reason", error))
    return None


def _is_plain(block: nn.Module) -> bool:
    return type(block) is Block and type(block.mlp) is Mlp


def _projection(backbone: Backbone) -> int:
    """Size of timm's head: a CLIP tower's image projection unless told otherwise, no classifier ever."""
    if backbone.projection is not None:
        return backbone.projection
    architecture, _, tag = backbone.name.partition(".")
    if "clip" not in architecture or "_ft_" in tag:
        return 0
    published = timm.get_pretrained_cfg(backbone.name)
    return int(published.num_classes) if published is not None else 0


def load_tower_weights(vit: VisionTransformer, path: str | Path) -> None:
    """Load a tower's weights from a local file, in any of the forms that timm reads.

    Positions and patches of another size are resampled, as timm does; a classifier in the file is left out.

    Raises:
        BundleError: if the file is missing, is not one of weights, or has other names or shapes.
    """
    file = Path(path)
    state = checkpoint_filter_fn(_read_weights(file), vit)
    wanted = {name: tuple(value.shape) for name, value in vit.state_dict().items()}
    pooling = ("attn_pool.", "head.") if isinstance(vit.head, nn.Identity) else ("attn_pool.",)
    given = {name: value for name, value in state.items() if not name.startswith(pooling)}
    problems = [f"lacks {name}" for name in wanted if name not in given and not name.startswith("attn_pool.")]
    problems += [f"has an unknown {name}" for name in given if name not in wanted]
    problems += [
        f"{name} is {tuple(value.shape)}, not {wanted[name]}"
        for name, value in given.items()
        if name in wanted and tuple(value.shape) != wanted[name]
    ]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise BundleError(
            f"not weights of this backbone: {'; '.join(problems[:4])}{more}",
            path=file,
            remedy="check backbone.name and backbone.args",
        )
    vit.load_state_dict(given, strict=False)


def _read_weights(file: Path) -> dict[str, torch.Tensor]:
    if not file.is_file():
        raise BundleError("no such file of weights", path=file, remedy="check backbone.weights")
    try:
        state: object = timm.models.load_state_dict(str(file), weights_only=True)
    except Exception as error:  # torch, pickle and safetensors each raise types of their own
        raise BundleError(
            "not a file of weights (.safetensors or .pth with tensors only)",
            path=file,
            remedy="save it with safetensors.torch.save_file",
        ) from error
    if not isinstance(state, dict) or not all(isinstance(v, torch.Tensor) for v in state.values()):
        raise BundleError("holds more than tensors by name", path=file, remedy="save the state dict alone")
    return state
