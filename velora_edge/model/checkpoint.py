"""Checkpoint of a trained model: LoRA and head apart from the frozen base, which is named or stored.

    FOLDER/checkpoint.json      the network's form, how its inputs are made, where its base comes from
    FOLDER/tuned.safetensors    what training changed
    FOLDER/base.safetensors     the rest, where the base is stored

A tensor of the base that equals the rgb tower's, or that is a copy of its last block, is stored once.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors.torch import load_file, save_file

from velora_edge.bundle import MANIFEST, EventInput, RGBInput
from velora_edge.console import note
from velora_edge.errors import UPDATE_LINE, BundleError, InputError, printable
from velora_edge.files import PartFolder
from velora_edge.limits import load_json, read_text
from velora_edge.model.config import ModelConfig  # noqa: TC001  (pydantic reads it)
from velora_edge.model.lora import base_names
from velora_edge.model.tower import recorded_normalisation
from velora_edge.model.velora import VELoRA, create_model

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

SCHEMA_VERSION = 2
CHECKPOINT = "checkpoint.json"
TUNED = "tuned.safetensors"
BASE = "base.safetensors"

State = dict[str, torch.Tensor]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Inputs(_Strict):
    """Making of the model's images from a recording; copied into the bundle.

    Attributes:
        event: how events become images.
        rgb: how pictures become images.
        stride: pairs from one of a clip's pairs to the next.
        span_s: seconds from the first pair of a clip to its last in training, the median where recordings
            differ; None: not known.
        rate_hz: pairs a second of the recordings; None: not known.
    """

    event: EventInput = EventInput()
    rgb: RGBInput = RGBInput()
    stride: int = Field(1, ge=1)
    span_s: float | None = Field(None, gt=0)
    rate_hz: float | None = Field(None, gt=0)


class Base(_Strict):
    """The part that training left as it was.

    Attributes:
        stored: whether it lies in the folder; else it is made again as `model.backbone` says.
        sha256: digest of its tensors, in either case.
    """

    stored: bool
    sha256: str


class Checkpoint(_Strict):
    """`checkpoint.json`.

    Attributes:
        schema_version: of this file's form.
        model: the network's form.
        inputs: how its images are made.
        base: where the frozen part is.
        trained: False for random weights.
        run: the training run's identity: its name, date, data and configuration's digest.
        accuracy: figures of its evaluation.
    """

    schema_version: int = SCHEMA_VERSION
    model: ModelConfig
    inputs: Inputs = Inputs()
    base: Base
    trained: bool = True
    run: dict[str, Any] = Field(default_factory=dict)
    accuracy: dict[str, Any] = Field(default_factory=dict)


def save_checkpoint(
    model: VELoRA,
    folder: str | Path,
    *,
    include_base: bool,
    trained: bool = True,
    inputs: Inputs | None = None,
    run: Mapping[str, Any] | None = None,
    accuracy: Mapping[str, Any] | None = None,
) -> Checkpoint:
    """Write the model to `folder`, whole or not at all; a checkpoint that is there is replaced.

    Args:
        model: with its LoRA apart (not merged).
        folder: where to.
        include_base: store the base too; without it, loading needs what `model.config.backbone` names.
        trained: False for random weights.
        inputs: how its images are made.
        run: identity of the training run.
        accuracy: figures of its evaluation.

    Raises:
        InputError: if the base is to be named and nothing names it, or the folder is something else.
    """
    target = Path(folder)
    _refuse_other_content(target)
    backbone = model.config.backbone
    is_named = (backbone.pretrained or backbone.weights is not None) and model.config.tuning != "full"
    if not include_base and not is_named:
        raise InputError(
            "the base is not one that can be made again (random, or tuned in full)",
            path=target,
            remedy="save it with include_base",
        )
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    base = {name: state[name] for name in base_names(model)}
    description = Checkpoint(
        model=model.config,
        inputs=inputs or Inputs(),
        base=Base(stored=include_base, sha256=state_sha256(base)),
        trained=trained,
        run=dict(run or {}),
        accuracy=dict(accuracy or {}),
    )
    target.parent.mkdir(parents=True, exist_ok=True)
    with PartFolder(target) as part:
        save_file({name: value for name, value in state.items() if name not in base}, part.path / TUNED)
        if include_base:
            save_file(_without_copies(base, _depth(model)), part.path / BASE)
        (part.path / CHECKPOINT).write_text(description.model_dump_json(indent=2) + "\n")
        for file in part.path.iterdir():
            file.chmod(0o644)  # safetensors keeps its files from everybody else
        part.commit()
    return description


def read_checkpoint(folder: str | Path) -> Checkpoint:
    """What a checkpoint says of itself; its weights are not looked at.

    Raises:
        BundleError: if there is no checkpoint, or not one that this version reads.
    """
    path = Path(folder)
    if not path.exists():
        raise BundleError("no such checkpoint", path=path, remedy="give the folder that training wrote")
    if not (path / CHECKPOINT).is_file():
        raise BundleError(f"not a checkpoint: {_what_else(path)}", path=path, remedy=_remedy(path))
    try:
        text = read_text(path / CHECKPOINT)
        _refuse_newer(text, path)
        return Checkpoint.model_validate_json(text)
    except BundleError:
        raise
    except (OSError, ValueError) as error:
        problems = str(error).splitlines()[0]
        if isinstance(error, ValidationError):
            problems = "; ".join(
                f"{printable('.'.join(map(str, e['loc'])), 60) or 'file'}: {printable(e['msg'], 200)}"
                for e in error.errors()[:5]
            )
        raise BundleError(problems, path=path, place=CHECKPOINT, remedy="train or import it again") from error


def _refuse_newer(text: str, path: Path) -> None:
    raw = load_json(text)
    version = raw.get("schema_version") if isinstance(raw, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        raise BundleError(
            f"schema version {version} is newer than this velora-edge reads (up to {SCHEMA_VERSION})",
            path=path,
            place=CHECKPOINT,
            remedy=UPDATE_LINE,
        )


def load_model(folder: str | Path) -> VELoRA:
    """The model of a checkpoint: a torch module, in eval mode, on the CPU.

    Its `forward(rgb, event)` takes normalised float images [B, T, 3, H, W] and returns logits [B, K].

    Raises:
        BundleError: if there is no checkpoint, a file of it is damaged or of another model, or the base that
            it names is not the one that it was trained on.
        InputError: if the base that it names cannot be had.
    """
    path = Path(folder)
    description = read_checkpoint(path)
    config = description.model
    warn_of_normalisation(config, path)
    weightless = {"pretrained": False, "weights": None} if description.base.stored else {}
    model = create_model(
        config.model_copy(update={"backbone": config.backbone.model_copy(update=weightless)})
    )
    model.config = config
    names = base_names(model)
    wanted = set(model.state_dict())
    state = _read(path, TUNED, wanted - names)
    if description.base.stored:
        stored = _with_copies(_read_tensors(path, BASE), names, _depth(model))
        state |= _same_names(path, BASE, stored, names)
    _load(model, state, path)
    found = state_sha256({name: value for name, value in model.state_dict().items() if name in names})
    if found != description.base.sha256:
        raise BundleError(
            f"expected a base with SHA-256 {description.base.sha256[:16]}..., got {found[:16]}...",
            path=path,
            place=BASE if description.base.stored else config.backbone.weights or config.backbone.name,
            remedy="use the weights that it was trained on, or copy the checkpoint again",
        )
    return model.eval()


def warn_of_normalisation(config: ModelConfig, path: Path) -> None:
    """Tell of a checkpoint that does not say who chose its mean and std, where its weights have others."""
    if config.normalised is not None or config.compat == "reference":
        return
    known = recorded_normalisation(config.backbone)
    if known is not None and (known.mean, known.std) != (config.mean, config.std):
        note(
            f"{path} does not say where its mean and std come from, {_triple(config.mean)} and "
            f"{_triple(config.std)}; its weights were trained with {_triple(known.mean)} and "
            f"{_triple(known.std)}: it computes as it was trained, and training it again will do better"
        )


def _triple(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def state_sha256(state: Mapping[str, torch.Tensor]) -> str:
    """Digest of a state dict: names, dtypes, shapes and bytes, in the order of the names."""
    digest = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _depth(model: VELoRA) -> int:
    return len(model.tower("rgb").vit.blocks)


def _original(name: str, depth: int) -> str:
    """The tensor that `name` starts as a copy of: the rgb tower's own, or that of its last block."""
    name = re.sub(r"^towers\.(event|diff)\.", "towers.rgb.", name)
    return re.sub(r"^head\.(shared|reconstruct)\.", f"towers.rgb.vit.blocks.{depth - 1}.", name)


def _without_copies(base: State, depth: int) -> State:
    kept = {}
    for name, value in base.items():
        original = base.get(_original(name, depth))
        if original is value or original is None or not torch.equal(original, value):
            kept[name] = value
    return kept


def _with_copies(stored: State, names: Iterable[str], depth: int) -> State:
    """The tensors stored under `names`, copies of others included, and whatever else is stored."""
    found = dict(stored)
    for name in names:
        if name not in stored and _original(name, depth) in stored:
            found[name] = stored[_original(name, depth)]
    return found


def _read(path: Path, file: str, names: set[str]) -> State:
    return _same_names(path, file, _read_tensors(path, file), names)


def _read_tensors(path: Path, file: str) -> State:
    if not (path / file).is_file():
        raise BundleError("the file is missing", path=path, place=file, remedy="copy the checkpoint again")
    try:
        return load_file(path / file)
    except Exception as error:  # safetensors raises a type of its own, that is not public
        raise BundleError(
            f"cannot be read: {str(error).splitlines()[0]}",
            path=path,
            place=file,
            remedy="copy the checkpoint again",
        ) from error


def _same_names(path: Path, file: str, state: State, names: set[str]) -> State:
    problems = [f"lacks {name}" for name in sorted(names - set(state))]
    problems += [f"has an unknown {name}" for name in sorted(set(state) - names)]
    if problems:
        more = f" and {len(problems) - 4} more" if len(problems) > 4 else ""
        raise BundleError(
            f"of another model: {'; '.join(problems[:4])}{more}",
            path=path,
            place=file,
            remedy=f"see {CHECKPOINT}",
        )
    return state


def _load(model: VELoRA, state: State, path: Path) -> None:
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    wrong = [
        f"{name} is {tuple(v.shape)}, not {shapes[name]}"
        for name, v in state.items()
        if tuple(v.shape) != shapes[name]
    ]
    if wrong:
        raise BundleError(f"of another model: {'; '.join(wrong[:4])}", path=path, remedy=f"see {CHECKPOINT}")
    model.load_state_dict(state, strict=False)


def _refuse_other_content(target: Path) -> None:
    if target.is_dir() and ((target / CHECKPOINT).is_file() or not any(target.iterdir())):
        return
    if target.exists():
        raise InputError("exists and is not a checkpoint", path=target, remedy="choose another name")


def _what_else(path: Path) -> str:
    if (path / MANIFEST).is_file():
        return "it is a bundle, which is for the runtime"
    return f"it holds no {CHECKPOINT}" if path.is_dir() else "it is a file"


def _remedy(path: Path) -> str:
    if path.suffix in (".pth", ".pt"):
        return f"velora import-checkpoint {path} OUT turns a published one into a folder"
    return "give the folder that training or velora import-checkpoint wrote"
