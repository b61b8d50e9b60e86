"""Tower: a timm vision transformer that keeps all its tokens; and its block, called part by part.

Two of timm's classes are towers: `VisionTransformer` with `Block` (ViT, DeiT, CLIP, DINOv2) and `Eva` with
`EvaBlock` (EVA-02, DINOv3, Perception Encoder, RoPE ViTs). Their FFN is an MLP or a SwiGLU, in one layer
(`fc1`) or two (`fc1_g`, `fc1_x`).
"""

from __future__ import annotations

import contextlib
import difflib
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, cast

import timm
import torch
from pydantic import BaseModel, ConfigDict, ValidationError
from safetensors import safe_open
from safetensors.torch import save_file
from timm.layers.mlp import GluMlp, Mlp, SwiGLU
from timm.models import eva, vision_transformer
from timm.models.eva import Eva, EvaBlock
from timm.models.vision_transformer import Block, VisionTransformer
from torch import nn

from velora_edge.bundle import file_sha256
from velora_edge.errors import BundleError, InputError
from velora_edge.files import PartFile
from velora_edge.limits import load_json
from velora_edge.model.config import Backbone
from velora_edge.model.weights import check_hub, positions_grid, read_state, recognise

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from velora_edge.model.config import ModelConfig
    from velora_edge.model.weights import State


class Tower(nn.Module):
    """Images to tokens: patches, blocks, norm on all tokens, then timm's head where it is a projection.

    Attributes:
        vit: the timm model, its own API untouched.
        tokens: tokens for an image, N, class and register tokens included.
        width: size of a token inside the blocks, D.
        token_size: size of a token that comes out, P.
        has_class_token: whether token 0 is the class token.
    """

    def __init__(self, vit: Any) -> None:
        super().__init__()
        self.vit = vit
        self.width = int(vit.embed_dim)
        self.token_size = int(vit.head.out_features) if isinstance(vit.head, nn.Linear) else self.width
        self.tokens = int(vit.patch_embed.num_patches + vit.num_prefix_tokens)
        self.has_class_token = vit.cls_token is not None

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Tokens [B, N, P] of normalised images [B, 3, H, W]."""
        tokens: torch.Tensor = self.vit.fc_norm(self.vit.forward_features(images))
        return cast("torch.Tensor", self.vit.head(tokens))

    @property
    def last_block(self) -> Any:
        """The timm Block or EvaBlock that the fusion is fed back into."""
        return self.vit.blocks[-1]

    @property
    def is_reference_form(self) -> bool:
        """Whether the published fusion can be computed with it: a ViT of plain blocks and MLPs."""
        return type(self.last_block) is Block and type(self.last_block.mlp) is Mlp

    def rotation(self) -> torch.Tensor | None:
        """Rotary positions of the last block's patches, sine and cosine, [..., N - prefix, 2 C]; or None."""
        rope: Any = getattr(self.vit, "rope", None)
        if rope is None:
            return None
        has_grid = hasattr(rope, "feat_shape")
        embedded: torch.Tensor = (
            rope.get_embed() if has_grid else rope.get_embed(self.vit.patch_embed.grid_size)
        )
        return embedded[-1] if self.vit.rope_mixed else embedded


def run_block(block: Any, x: torch.Tensor, rotation: torch.Tensor | None) -> torch.Tensor:
    """A tower's block on tokens [B, N, D]; `rotation` as `Tower.rotation` gives it, for these."""
    out: torch.Tensor = block(x) if rotation is None else block(x, rope=rotation)
    return out


def repeat_rotation(rotation: torch.Tensor | None, prefix: int, times: int) -> torch.Tensor | None:
    """Rotation of `times` images' tokens one after the other; class and register tokens are not turned.

    Args:
        rotation: of one image's patch tokens, [..., N - prefix, 2 C].
        prefix: class and register tokens before an image's patches.
        times: images.
    """
    if rotation is None:
        return None
    sine = rotation.new_zeros(*rotation.shape[:-2], prefix, rotation.shape[-1] // 2)
    still = torch.cat([sine, sine + 1], dim=-1)
    return torch.cat([rotation, *[still, rotation] * (times - 1)], dim=-2)


def attend(block: Any, x: torch.Tensor, rotation: torch.Tensor | None = None) -> torch.Tensor:
    """Tokens [B, N, D] after a block's attention, with its residual."""
    normed = block.norm1(x)
    attended = block.attn(normed) if rotation is None else block.attn(normed, rope=rotation)
    out: torch.Tensor = x + block.drop_path1(_layer_scale(block, 1)(attended))
    return out


def feed_forward(
    block: Any, x: torch.Tensor, first: Callable[[nn.Module, torch.Tensor], torch.Tensor]
) -> torch.Tensor:
    """What a block's FFN adds to tokens [B, N, D].

    Args:
        block: of a tower.
        x: tokens after attention.
        first: computes a first layer of the FFN on the normed tokens.
    """
    mlp, normed = block.mlp, block.norm2(x)
    if isinstance(mlp, SwiGLU):
        hidden = mlp.act(first(mlp.fc1_g, normed)) * first(mlp.fc1_x, normed)
    elif isinstance(mlp, GluMlp):
        left, right = first(mlp.fc1, normed).chunk(2, dim=-1)
        hidden = left * mlp.act(right) if mlp.gate_last else mlp.act(left) * right
    else:
        hidden = mlp.act(first(mlp.fc1, normed))
    out = mlp.drop2(mlp.fc2(mlp.norm(mlp.drop1(hidden))))
    added: torch.Tensor = block.drop_path2(_layer_scale(block, 2)(out))
    return added


def first_layers(block: Any) -> dict[str, nn.Module]:
    """The first layers of a block's FFN by their names in the block."""
    names = ("fc1_g", "fc1_x") if isinstance(block.mlp, SwiGLU) else ("fc1",)
    return {f"mlp.{name}": getattr(block.mlp, name) for name in names}


def _layer_scale(block: Any, number: int) -> Callable[[torch.Tensor], torch.Tensor]:
    if not isinstance(block, EvaBlock):
        return cast("nn.Module", getattr(block, f"ls{number}"))
    gamma = getattr(block, f"gamma_{number}")
    return lambda x: x if gamma is None else gamma * x


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
    for block in vit.blocks:
        if getattr(block.attn, "q_bias", None) is not None:
            block.attn.qkv_bias_separate = (
                True  # or the layer's weight is read past the layer, and past its LoRA
            )
    return Tower(vit)


def _create_vit(backbone: Backbone, image_size: tuple[int, int]) -> Any:
    if not timm.is_model(backbone.name.split(".")[0]):
        close = ", ".join(difflib.get_close_matches(backbone.name.split(".")[0], timm.list_models(), 3))
        raise InputError(
            f"timm has no model {backbone.name}",
            place="backbone.name",
            remedy=f"try one of: {close}" if close else "list them with timm.list_models('vit*')",
        )
    if backbone.pretrained:
        check_hub(backbone.name)
    arguments: dict[str, Any] = {
        "num_classes": _projection(backbone),
        "img_size": image_size,
        **backbone.args,
    }
    if timm.models.is_model_in_modules(backbone.name.split(".")[0], ["eva"]):
        arguments.setdefault("dynamic_img_size", False)  # positions of the one grid are constants of a graph
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
    if not _is_tower(vit):
        raise InputError(
            f"{backbone.name} is not a plain vision transformer (timm's {type(vit).__name__}): "
            "towers are VisionTransformer with Block and Eva with EvaBlock",
            place="backbone.name",
            remedy="choose a ViT, DeiT, CLIP, DINO, EVA-02 or PE tower; docs/guides/training.md has a list",
        )
    return vit


def _is_tower(vit: nn.Module) -> bool:
    if not isinstance(vit, VisionTransformer | Eva):
        return False
    kind = Block if isinstance(vit, VisionTransformer) else EvaBlock
    block = vit.blocks[-1]
    return type(block) is kind and type(block.mlp) in (Mlp, GluMlp, SwiGLU)


def _projection(backbone: Backbone) -> int:
    """Size of timm's head: a CLIP tower's image projection unless told otherwise, no classifier ever."""
    if backbone.projection is not None:
        return backbone.projection
    architecture, _, tag = backbone.name.partition(".")
    if "clip" not in architecture or "_ft_" in tag:
        return 0
    published = timm.get_pretrained_cfg(backbone.name)
    return int(published.num_classes) if published is not None else 0


def load_tower_weights(vit: nn.Module, path: str | Path) -> None:
    """Load a tower's weights from a local file, in any of the forms that `velora_edge.model.weights` reads.

    Positions and patches of another size are resampled, as timm does; a classifier in the file is left out.

    Raises:
        BundleError: if the file is missing, is not one of weights, or has other names or shapes.
    """
    _load(vit, read_state(path), Path(path))


def _load(vit: nn.Module, raw: State, file: Path) -> None:
    convert = (eva if isinstance(vit, Eva) else vision_transformer).checkpoint_filter_fn
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it tries
        state: State = convert(raw, vit)
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


Colour = tuple[float, float, float]
RECORD = "velora"
"""Key of the record in a safetensors file's metadata."""


class TowerRecord(BaseModel):
    """What a file of weights says of itself.

    Attributes:
        name: timm's name of the model.
        args: passed on to `timm.create_model`.
        projection: size of its image projection; 0: none.
        image_size: height and width of the images that it was trained on, pixels.
        mean: of its training images, scaled to 0..1, by channel.
        std: their standard deviation.
        source: file or name that the weights come from.
        sha256: of that file; empty where it was none.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    args: dict[str, Any] = {}
    projection: int = 0
    image_size: tuple[int, int]
    mean: Colour
    std: Colour
    source: str = ""
    sha256: str = ""

    def metadata(self) -> dict[str, str]:
        """Metadata of a safetensors file with this record: one entry, since several have no fixed order."""
        return {RECORD: self.model_dump_json()}


def read_record(path: str | Path) -> TowerRecord | None:
    """The record in a file of weights; None where it has none.

    Raises:
        BundleError: if there is one that cannot be read.
    """
    file = Path(path)
    if file.suffix != ".safetensors" or not file.is_file():
        return None
    try:
        with safe_open(file, "pt") as opened:
            text = (opened.metadata() or {}).get(RECORD)
    except Exception:  # a type of safetensors' own; who reads the tensors tells what is wrong
        return None
    if text is None:
        return None
    try:
        return TowerRecord.model_validate(load_json(text))
    except (ValueError, ValidationError) as error:
        raise BundleError(
            "its record of mean and std cannot be read", path=file, remedy="make it anew: velora weights"
        ) from error


class Normalisation(NamedTuple):
    """Mean and standard deviation of a tower's images, by channel, and who says so."""

    mean: Colour
    std: Colour
    said_by: Literal["file", "timm"]


def recorded_normalisation(backbone: Backbone) -> Normalisation | None:
    """How the images of a tower's weights are normalised, by their file's record, else by timm's.

    None for random weights, which were trained on nothing, and for a model that timm has no record of.
    """
    record = None if backbone.weights is None else read_record(backbone.weights)
    if record is not None:
        return Normalisation(record.mean, record.std, "file")
    if backbone.weights is None and not backbone.pretrained:
        return None
    published = timm.get_pretrained_cfg(backbone.name)
    if published is None or len(published.mean) != 3 or len(published.std) != 3:
        return None
    return Normalisation(_colour(published.mean), _colour(published.std), "timm")


def _colour(values: Sequence[float]) -> Colour:
    red, green, blue = values
    return red, green, blue


def convert_tower(source: str, out: Path, backbone: Backbone | None = None) -> TowerRecord:
    """Write the weights of a tower as timm names them, with a record of mean and std, to a safetensors file.

    Args:
        source: a file that `velora_edge.model.weights` reads, or timm's name of a model that its hub has.
        out: the file; one that is there is replaced.
        backbone: the model that a file's weights are of; None: told by the tensors.

    Raises:
        BundleError: if the file is not one of weights, or of another model.
        InputError: if timm has no such model, or its hub cannot be reached.
    """
    file = Path(source)
    state = read_state(file) if file.is_file() else None
    if state is None:
        backbone = Backbone(name=source, pretrained=True)
    elif backbone is None:
        backbone = Backbone(name=recognise(state, file))
    published = timm.get_pretrained_cfg(backbone.name)
    _, height, width = (3, 224, 224) if published is None else published.input_size
    size = (int(height), int(width))
    if state is not None and (grid := positions_grid(state)) is not None:
        patch = next(v.shape[-1] for v in state.values() if v.ndim == 4)
        size = (grid * patch, grid * patch)
    vit = _create_vit(backbone, size)
    if state is not None:
        _load(vit, state, file)
    known = recorded_normalisation(backbone.model_copy(update={"weights": source if state else None}))
    record = TowerRecord(
        name=backbone.name,
        args=backbone.args,
        projection=_projection(backbone),
        image_size=size,
        mean=known.mean if known else (0.5, 0.5, 0.5),
        std=known.std if known else (0.5, 0.5, 0.5),
        source=file.name,
        sha256=file_sha256(file) if state is not None else "",
    )
    tensors = {
        name: value.contiguous() for name, value in vit.state_dict().items() if "attn_pool." not in name
    }
    with PartFile(out) as part:
        save_file(tensors, part.path, metadata=record.metadata())
        part.commit()
    return record
