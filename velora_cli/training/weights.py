"""`velora weights NAME|FILE [OUT]`: the weights of a tower, from timm's hub or another tool's file."""

from __future__ import annotations

from pathlib import Path

import click

from velora_edge.console import refuse_existing
from velora_edge.errors import InputError

_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".onnx", ".ckpt")


@click.command(
    epilog="Examples:  velora weights vit_small_patch14_dinov2.lvd142m  |  "
    "velora weights dinov2_vits14_pretrain.pth  |  "
    "velora weights ViT-B-16.pt clip.safetensors --name vit_base_patch16_clip_quickgelu_224.openai"
)
@click.argument("source", metavar="NAME|FILE")
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "--name",
    metavar="MODEL",
    help="timm's name of the model that FILE's weights are of, with its tag where mean and std depend on it. "
    "[default: told by the tensors]",
)
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
def command(source: str, out: Path | None, name: str | None, overwrite: bool) -> None:
    """Fetch the weights of timm's model NAME, or convert those in FILE, to the file OUT.

    FILE may be timm's or open_clip's (.safetensors, .bin, .pth), Facebook's DINOv2, DINOv3 or Perception
    Encoder (.pth), Hugging Face's DINOv2, DINOv3 or CLIP, OpenAI's CLIP in TorchScript (.pt), or an .onnx
    with one of them inside. No code of it is run. OUT, MODEL.safetensors by default, also holds mean and std;
    what is printed goes into a configuration.
    """
    from velora_edge.model.config import Backbone
    from velora_edge.model.tower import convert_tower
    from velora_edge.model.weights import read_state, recognise

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
    size_mb = target.stat().st_size / 1e6
    mean, std = (" ".join(f"{value:g}" for value in triple) for triple in (record.mean, record.std))
    click.echo(f"{target}: {record.name}, {size_mb:.1f} MB; mean {mean}, std {std}")
    click.echo("in the configuration, below model:")
    click.echo(f"  backbone: {{name: {record.name}, weights: {target}}}")
    click.echo(f"  image_size: {list(record.image_size)}")
