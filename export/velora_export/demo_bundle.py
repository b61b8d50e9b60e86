"""Makes the demo bundle with random weights, from a seed: `python -m velora_export.demo_bundle [OUT]`.

Its manifest says that they are random. A trained one of the same form takes its place by
`velora export CHECKPOINT velora_edge/assets/demo.velora --name demo`.
"""

from __future__ import annotations

import sys
from itertools import product
from pathlib import Path

import click
import torch
from torch import nn

from velora_edge.bundle import Bundle, find_model
from velora_edge.console import run
from velora_edge.model.config import Backbone, LoRA, ModelConfig
from velora_edge.model.velora import VELoRA, create_model
from velora_export.bundle_export import export_bundle

COLOURS = ("red", "green", "blue")
DIRECTIONS = ("left", "right", "up", "down")
LABELS = tuple(f"{colour}-{direction}" for colour, direction in product(COLOURS, DIRECTIONS))

CONFIG = ModelConfig(
    labels=LABELS,
    clip_length=8,
    image_size=(64, 64),
    backbone=Backbone(
        name="vit_tiny_patch16_224",
        args={"patch_size": 8, "embed_dim": 128, "depth": 4, "num_heads": 4, "mlp_ratio": 3},
    ),
    lora=LoRA(rank=8, alpha=16),
)
"""Small enough for a live demonstration on one CPU core, and for a package."""


def random_demo_model(seed: int = 0) -> VELoRA:
    """The demo's network with random weights, its LoRA branches too (training starts them at zero)."""
    torch.manual_seed(seed)
    model = create_model(CONFIG)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.02)
    return model.eval()


def make_demo_bundle(path: Path, seed: int = 0) -> Bundle:
    """Write the demo bundle with random weights to `path`."""
    return export_bundle(random_demo_model(seed), path, name="demo", trained=False, progress=click.echo)


@click.command()
@click.argument("out", type=click.Path(path_type=Path), required=False)
@click.option("--seed", default=0, show_default=True, help="Of the random weights.")
def command(out: Path | None, seed: int) -> None:
    """Write the demo bundle to OUT, by default to its place in the package."""
    bundle = make_demo_bundle(out or find_model("demo"), seed)
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    click.echo(f"{bundle.path}: {size / 1e6:.1f} MB, {len(LABELS)} labels, random weights")


if __name__ == "__main__":
    sys.exit(run(command))
