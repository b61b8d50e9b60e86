"""`velora pretrain CONFIG`: pre-training of a tower, for LoRA to start from."""

from __future__ import annotations

import time

import click


@click.command(epilog="Example:  velora pretrain configs/demo_pretrain.yaml train.epochs=10")
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--overwrite", is_flag=True, help="Replace a tower that is in the run's folder.")
def command(config: str, overrides: tuple[str, ...], overwrite: bool) -> None:
    """Train a vision transformer to tell single images, as CONFIG says.

    Leaves its weights in RUN/tower.safetensors: name them as model.backbone.weights in a training
    configuration.
    """
    from velora_edge.config import load_config
    from velora_edge.train.pretrain import pretrain
    from velora_edge.train.settings import PretrainConfig

    start = time.monotonic()
    settings = load_config(config, PretrainConfig, overrides)
    tower = pretrain(settings, overwrite=overwrite, say=lambda line: click.echo(line, err=True))
    figures = ", ".join(f"{name} {value:.4f}" for name, value in tower.figures.items())
    click.echo(f"{tower.weights}: {figures}; {time.monotonic() - start:.0f} s")
    click.echo(f"next: velora train CONFIG model.backbone.weights={tower.weights}")
