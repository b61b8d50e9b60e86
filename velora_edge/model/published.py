"""Import of checkpoints that VELoRA's authors published, by name and shape; no tensor is left over.

Layout of the file (arXiv 2412.20064, the authors' training script): a dict of four state dicts, one of the
fusion head and one for each tower, with peft's names for LoRA; see `_HEAD` and `_TOWER` for the names.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from velora_edge.bundle import EventInput, RGBInput
from velora_edge.config import class_names_for
from velora_edge.errors import BundleError
from velora_edge.model.checkpoint import Inputs
from velora_edge.model.config import Backbone, LoRA, ModelConfig, default_heads
from velora_edge.model.velora import VELoRA, create_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

State = dict[str, torch.Tensor]

ARCHITECTURE = "vit_base_patch16_clip_quickgelu_224"
TOWERS = {
    "rgb": "ViT_model_state_dict",
    "event": "Event_ViT_model_state_dict",
    "diff": "frame_ViT_model_state_dict",
}
HEAD = "model_state_dict"

INPUTS = Inputs(event=EventInput(fit="stretch"), rgb=RGBInput(fit="stretch", resample="bilinear"))
"""What the published code does to an image: torchvision's Resize((224, 224)) of what Pillow read."""

NORMALISATION = (0.5, 0.5, 0.5)
"""Mean and standard deviation in the published code, although its towers are CLIP's."""

_HEAD = {
    r"visual_embed\.(weight|bias)": r"head.embedding.project.\1",
    r"fuse_blocks\.0\.(.+)": r"head.shared.\1",
    r"blocks\.0\.(.+)": r"head.reconstruct.\1",
    r"norm\.(weight|bias)": r"head.reconstruct_norm.\1",
    r"self_attention\.((?:query|key|value)\..+)": r"head.attention.\1",
    r"fc1\.(weight|bias)": r"head.classifier.\1",
    r"(rgb|event|frame)_embed": r"head.embedding.modality.\1",
}
_TOWER = {
    r"visual\.class_embedding": "cls_token",
    r"visual\.positional_embedding": "pos_embed",
    r"visual\.conv1\.weight": "patch_embed.proj.weight",
    r"visual\.ln_pre\.(weight|bias)": r"norm_pre.\1",
    r"visual\.ln_post\.(weight|bias)": r"norm.\1",
    r"visual\.proj": "head.weight",
    r"visual\.transformer\.resblocks\.(\d+)\.ln_([12])\.(weight|bias)": r"blocks.\1.norm\2.\3",
    r"visual\.transformer\.resblocks\.(\d+)\.attn\.in_proj_(weight|bias)": r"blocks.\1.attn.qkv.\2",
    r"visual\.transformer\.resblocks\.(\d+)\.attn\.out_proj\.(weight|bias)": r"blocks.\1.attn.proj.\2",
    r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_fc\.(.+)": r"blocks.\1.mlp.fc1.\2",
    r"visual\.transformer\.resblocks\.(\d+)\.mlp\.c_proj\.(.+)": r"blocks.\1.mlp.fc2.\2",
}
# In the file, but without effect on a prediction: the text tower, and layers that no forward pass reaches.
_UNUSED_HEAD = (
    "CLS_token", "bn.", "cross_model.", "remain_weight_layer.", "tex_embed", "weight_layer.", "word_embed."
)  # fmt: skip
_UNUSED_TOWER = (
    "transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection", "logit_scale"
)  # fmt: skip


@dataclass(frozen=True)
class Imported:
    """A published checkpoint as one of our models.

    Attributes:
        model: in `compat="reference"` form, with the published weights, in eval mode.
        used: tensors taken over.
        unused: names in the file that have no effect on a prediction, by part.
        passed_over: names that this version does not know and that `allow_unknown` let pass.
        epoch: of the training that wrote it, None where the file does not say.
    """

    model: VELoRA
    used: int
    unused: dict[str, tuple[str, ...]]
    passed_over: tuple[str, ...]
    epoch: int | None


def import_published(
    path: str | Path,
    *,
    labels: Sequence[str] | None = None,
    heads: int | None = None,
    fusion_heads: int | None = None,
    alpha: float = 8.0,
    clip_length: int = 8,
    allow_unknown: bool = False,
) -> Imported:
    """Turn a published checkpoint into a model that computes what the published code does at batch 1.

    Args:
        path: the `.pth` file; only tensors and plain values are read from it, no code is run.
        labels: class names, in order; None: those of the published set that has as many classes (114 of
            PokerEvent, 300 of HARDVS), else class-0, class-1, ...
        heads: the towers' attention heads, which no tensor's shape tells; None: 64 channels a head, but at
            least 4 heads (12 for ViT-B).
        fusion_heads: those of the fusion block; None: by the same rule.
        alpha: of LoRA, which no tensor tells either; published: 8, at rank 4.
        clip_length: pairs in a clip; published: 8.
        allow_unknown: pass over names that nobody here knows, and list them; what the network needs must be
            there all the same. The authors load their own file like that.

    Raises:
        BundleError: if the file is not such a checkpoint: every missing, unknown or misshapen name is listed.
    """
    file = Path(path)
    raw = _load(file)
    parts = {part: _state(file, raw, part) for part in (HEAD, *TOWERS.values())}
    state, unused, unknown = _translate(parts)
    if unknown and not allow_unknown:
        remedy = "--allow-unknown passes over them, if it is of the published network"
        raise _mismatch(file, [f"unknown {name}" for name in unknown], remedy)
    config = _config(file, state, labels, heads, fusion_heads, alpha, clip_length)
    model = create_model(config)
    strange = _load_into(model, state, file, allow_unknown=allow_unknown)
    epoch = raw.get("epoch")
    return Imported(
        model.eval(),
        len(state) - len(strange),
        unused,
        (*unknown, *strange),
        epoch if isinstance(epoch, int) else None,
    )


def _load(file: Path) -> dict[str, object]:
    if not file.is_file():
        raise BundleError("no such checkpoint", path=file, remedy="give the published .pth file")
    remedy = f"give the authors' file: a dict of {HEAD}, {', '.join(TOWERS.values())}"
    try:
        raw: object = torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises types of zipfile, pickle and its own
        raise BundleError("not a torch checkpoint of tensors", path=file, remedy=remedy) from error
    if not isinstance(raw, dict):
        raise BundleError(f"holds a {type(raw).__name__}, not a dict", path=file, remedy=remedy)
    missing = [part for part in (HEAD, *TOWERS.values()) if part not in raw]
    if missing:
        raise BundleError(
            f"not a published VELoRA checkpoint: lacks {', '.join(missing)}", path=file, remedy=remedy
        )
    return raw


def _state(file: Path, raw: dict[str, object], part: str) -> State:
    value = raw[part]
    if not isinstance(value, dict) or not all(isinstance(t, torch.Tensor) for t in value.values()):
        raise BundleError("expected tensors by name", path=file, place=part, remedy="give the authors' file")
    return value


def _translate(parts: dict[str, State]) -> tuple[State, dict[str, tuple[str, ...]], list[str]]:
    """Our names for what is used, and the names of what is not used and of what nobody knows."""
    state: State = {}
    unused: dict[str, tuple[str, ...]] = {}
    unknown: list[str] = []
    modality_of = {part: modality for modality, part in TOWERS.items()}
    for part, tensors in parts.items():
        table, ignored = (_HEAD, _UNUSED_HEAD) if part == HEAD else (_TOWER, _UNUSED_TOWER)
        prefix = "" if part == HEAD else f"towers.{modality_of[part]}.vit."
        idle = []
        for name, tensor in tensors.items():
            plain = name.removeprefix("module.").removeprefix("base_model.model.")
            ours = _rename(plain, table)
            if ours is not None:
                state[prefix + ours] = tensor
            elif plain.startswith(ignored):
                idle.append(name)
            else:
                unknown.append(f"{part}: {name}")
        unused[part] = tuple(idle)
    return state, unused, unknown


def _rename(name: str, table: dict[str, str]) -> str | None:
    for pattern, ours in table.items():
        if found := re.fullmatch(pattern, name):
            return found.expand(ours)
    return None


def _config(
    file: Path,
    state: State,
    labels: Sequence[str] | None,
    heads: int | None,
    fusion_heads: int | None,
    alpha: float,
    clip_length: int,
) -> ModelConfig:
    """Sizes from the tensors' shapes."""
    tower = "towers.rgb.vit."
    needed = ("patch_embed.proj.weight", "pos_embed", "head.weight", "blocks.0.mlp.fc1.lora_A.default.weight")
    _require(file, state, [*(tower + name for name in needed), "head.classifier.weight"])
    width, _, patch, _ = state[tower + "patch_embed.proj.weight"].shape
    grid = math.isqrt(state[tower + "pos_embed"].shape[0] - 1)
    depth = len(
        {name for name in state if re.fullmatch(r"towers\.rgb\.vit\.blocks\.\d+\.norm1\.weight", name)}
    )
    rank = state[tower + "blocks.0.mlp.fc1.lora_A.default.weight"].shape[0]
    classes = state["head.classifier.weight"].shape[0]
    if labels is not None and len(labels) != classes:
        raise BundleError(
            f"expected {classes} labels, got {len(labels)}", path=file, remedy="give one label for each class"
        )
    names = labels or class_names_for(classes) or [f"class-{k}" for k in range(classes)]
    return ModelConfig(
        labels=tuple(names),
        mean=NORMALISATION,
        std=NORMALISATION,
        normalised="given",
        clip_length=clip_length,
        image_size=(grid * patch, grid * patch),
        backbone=Backbone(
            name=ARCHITECTURE,
            args={
                "patch_size": patch,
                "embed_dim": width,
                "depth": depth,
                "num_heads": heads or default_heads(width),
            },
            projection=state[tower + "head.weight"].shape[1],
        ),
        lora=LoRA(rank=rank, alpha=alpha),
        compat="reference",
        fusion_heads=fusion_heads or default_heads(width),
    )


def _load_into(model: VELoRA, state: State, file: Path, *, allow_unknown: bool) -> list[str]:
    """Bring each tensor to our layout and load all of them, after names and shapes were compared.

    Returns:
        Names that the network does not have, where they are allowed.
    """
    ours: State = {}
    modality = []
    for key in ("rgb", "event", "frame"):
        name = f"head.embedding.modality.{key}"
        _require(file, state, [name])
        modality.append(state[name].reshape(1, -1))
    for name, tensor in state.items():
        if name.endswith("vit.head.weight"):
            ours[name] = tensor.T.contiguous()
            ours[name.replace("weight", "bias")] = tensor.new_zeros(tensor.shape[1])
        elif name.endswith("vit.cls_token"):
            ours[name] = tensor[None, None]
        elif name.endswith("vit.pos_embed"):
            ours[name] = tensor[None]
        elif not name.startswith("head.embedding.modality."):
            ours[name] = tensor
    ours["head.embedding.modality"] = torch.stack(modality)
    ours["head.embedding.absent"] = torch.zeros_like(ours["head.embedding.modality"])
    wanted = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    problems = [f"missing {name}" for name in wanted if name not in ours]
    strange = [name for name in ours if name not in wanted]
    problems += [f"unknown {name}" for name in strange if not allow_unknown]
    problems += [
        f"{name} is {tuple(ours[name].shape)}, not {shape}"
        for name, shape in wanted.items()
        if name in ours and tuple(ours[name].shape) != shape
    ]
    if problems:
        raise _mismatch(file, problems)
    model.load_state_dict({name: ours[name] for name in wanted})
    return strange


def _require(file: Path, state: State, names: Iterable[str]) -> None:
    missing = [f"missing {name}" for name in names if name not in state]
    if missing:
        raise _mismatch(file, missing)


def _mismatch(
    file: Path, problems: Sequence[str], remedy: str = "check that it is whole and of the published network"
) -> BundleError:
    more = f", and {len(problems) - 8} more" if len(problems) > 8 else ""
    return BundleError(
        f"not a published VELoRA checkpoint: {len(problems)} names or shapes differ: "
        f"{', '.join(problems[:8])}{more}",
        path=file,
        remedy=remedy,
    )
