"""`velora weights NAME|FILE|MODEL [OUT]`: weights of a tower, from timm's hub, a tool's file or a bundle."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_edge.bundle import MANIFEST, find_model, open_bundle
from velora_edge.console import refuse_existing
from velora_edge.errors import BundleError, InputError, MissingExtraError

if TYPE_CHECKING:
    import torch

    from velora_edge.bundle import Bundle
    from velora_edge.model.tower import TowerRecord

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".onnx", ".ckpt")


@click.command(
    epilog="Examples:  velora weights demo tower.safetensors  |  "
    "velora weights vit_small_patch14_dinov2.lvd142m  |  "
    "velora weights dinov2_vits14_pretrain.pth  |  "
    "velora weights ViT-B-16.pt clip.safetensors --name vit_base_patch16_clip_quickgelu_224.openai"
)
@click.argument("source", metavar="NAME|FILE|MODEL")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--name",
    metavar="MODEL",
    help="timm's name of the model that FILE's weights are of, with its tag where mean and std depend on it. "
    "[default: told by the tensors]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
def command(source: str, out: Path | None, name: str | None, overwrite: bool) -> None:
    """Fetch the weights of timm's model NAME, or convert those in FILE or the bundle MODEL, to the file OUT.

    FILE may be timm's or open_clip's (.safetensors, .bin, .pth), Facebook's DINOv2, DINOv3 or Perception
    Encoder (.pth), Hugging Face's DINOv2, DINOv3 or CLIP, OpenAI's CLIP in TorchScript (.pt), or an .onnx
    with one of them inside. No code of it is run. Of a bundle in fp32, or demo, it is the tower for pictures.
    OUT, MODEL.safetensors by default, also holds mean and std; what is printed goes into a configuration.
    """
    from velora_edge.model.config import Backbone
    from velora_edge.model.tower import convert_tower
    from velora_edge.model.weights import read_state, recognise

    if (find_model(source) / MANIFEST).is_file():
        target = out or Path(f"{find_model(source).stem}.safetensors")
        refuse_existing(target, overwrite=overwrite)
        state, record = read_bundle_tower(source)
        _write(state, record, target)
        _tell(record, target)
        return
    file = Path(source)
    if not file.is_file() and (file.suffix in _SUFFIXES or len(file.parts) > 1):
        raise InputError(
            "no such file of weights", path=file, remedy="check the path, or give timm's name of a model"
        )
    if not file.is_file() and name is not None:
        raise InputError(
            "is for a file", place="--name", remedy=f"give the name alone: velora weights {name}"
        )
    if file.is_file():
        name = name or recognise(read_state(file), file)
    target = out or Path(f"{name or source}.safetensors")
    refuse_existing(target, overwrite=overwrite)
    record = convert_tower(source, target, None if name is None else Backbone(name=name))
    _tell(record, target)


def _tell(record: TowerRecord, target: Path) -> None:
    size_mb = target.stat().st_size / 1e6
    mean, std = (" ".join(f"{value:g}" for value in triple) for triple in (record.mean, record.std))
    click.echo(f"{target}: {record.name}, {size_mb:.1f} MB; mean {mean}, std {std}")
    click.echo("in the configuration, below model:")
    args = f", args: {json.dumps(record.args)}" if record.args else ""
    click.echo(f"  backbone: {{name: {record.name}{args}, weights: {target}}}")
    click.echo(f"  image_size: {list(record.image_size)}")


def _write(state: dict[str, torch.Tensor], record: TowerRecord, target: Path) -> None:
    from safetensors.torch import save_file

    from velora_edge.files import PartFile

    with PartFile(target) as part:
        save_file(state, part.path, metadata=record.metadata())
        part.commit()


PLAIN = "vit_tiny_patch16_224"
"""Timm's name of a plain vision transformer; `args` make it any other one."""


def read_bundle_tower(model: str) -> tuple[dict[str, torch.Tensor], TowerRecord]:
    """The tower of a bundle's pictures under timm's names, LoRA merged, and its record.

    Export leaves out biases that change nothing and divides attention's scale between queries and keys
    (`velora_export.onnx.graphs`); the tower that is read gives the same tokens.

    Args:
        model: the bundle's folder, or demo.

    Raises:
        BundleError: if it is not in fp32, or its tower is not a plain vision transformer.
    """
    from velora_edge.model.tower import TowerRecord

    bundle = open_bundle(find_model(model))
    manifest = bundle.manifest
    if manifest.precision != "fp32":
        raise BundleError(
            f"is in {manifest.precision}", path=bundle.path, remedy="export it again with --precision fp32"
        )
    values, queries = _read_graph(bundle)
    try:
        state, args = _as_vit(values, queries, manifest.image_size)
    except (KeyError, IndexError, RuntimeError) as error:
        raise BundleError(
            "its tower is not a plain vision transformer", path=bundle.path, remedy="start from another one"
        ) from error
    record = TowerRecord(
        name=PLAIN,
        args=args,
        image_size=manifest.image_size,
        mean=manifest.mean,
        std=manifest.std,
        source=manifest.name,
    )
    return state, record


def _read_graph(bundle: Bundle) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
    """A tower's tensors by timm's names, and the queries' biases, [heads, width of one], by block."""
    try:
        import onnx
        from onnx import numpy_helper
    except ImportError as error:
        raise MissingExtraError("onnx", "train", "the tower of a bundle") from error
    import torch

    from velora_edge.ort import checked_copy

    with checked_copy(bundle, "rgb") as path:
        graph = onnx.load(str(path)).graph
    tensors = {one.name: torch.from_numpy(numpy_helper.to_array(one).copy()) for one in graph.initializer}
    start = "tower.vit."
    queries: list[torch.Tensor] = []
    values = {name.removeprefix(start): value for name, value in tensors.items() if name.startswith(start)}
    for node in graph.node:
        place = re.fullmatch(r"model/towers\.rgb\.vit\.(blocks\.\d+\.\w+\.\w+)/MatMul", node.name)
        for value in (tensors[name] for name in node.input if name in tensors):
            if place is not None:
                values[f"{place[1]}.weight"] = value.T.contiguous()
            elif node.op_type == "Add" and value.ndim == 2:
                queries.append(value)
    return values, queries


def _as_vit(
    values: dict[str, torch.Tensor], queries: list[torch.Tensor], image_size: tuple[int, int]
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """The state of timm's network that gives the same tokens, and its arguments."""
    import timm
    import torch

    state, (heads, size) = dict(values), queries[0].shape
    width, root = heads * size, float(size) ** 0.25
    for block, query in enumerate(queries):
        qkv = f"blocks.{block}.attn.qkv"
        state[f"{qkv}.bias"] = torch.cat([query.reshape(-1) * root, torch.zeros(2 * width)])
        rows = torch.ones(3 * width, 1)
        rows[: 2 * width] = root
        state[f"{qkv}.weight"] = state[f"{qkv}.weight"] * rows
    args: dict[str, Any] = {
        "patch_size": state["patch_embed.proj.weight"].shape[-1],
        "embed_dim": width,
        "depth": len(queries),
        "num_heads": heads,
        "mlp_ratio": len(state["blocks.0.mlp.fc1.bias"]) / width,
    }
    timm.create_model(PLAIN, num_classes=0, img_size=image_size, **args).load_state_dict(state)
    return state, args
