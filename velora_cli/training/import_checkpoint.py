"""`velora import-checkpoint`: the authors' published file to a checkpoint of this project."""

from __future__ import annotations

from pathlib import Path

import click


@click.command(
    epilog="Examples:  velora import-checkpoint published.pth runs/published  |  "
    "velora import-checkpoint published.pth runs/published --labels poker.txt"
)
@click.argument("published", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--labels", type=click.Path(path_type=Path), help="Class names: a text file, one a line.")
@click.option("--heads", type=click.IntRange(1), help="Attention heads of the towers; by default width / 64.")
@click.option("--fusion-heads", type=click.IntRange(1), help="Those of the fusion block.")
@click.option("--alpha", default=8.0, show_default=True, help="LoRA's alpha, which the file does not hold.")
@click.option("--clip-length", default=8, show_default=True, help="Pairs in a clip.")
@click.option("--verbose", is_flag=True, help="List the names that have no effect on a prediction.")
def command(
    published: Path,
    out: Path,
    labels: Path | None,
    heads: int | None,
    fusion_heads: int | None,
    alpha: float,
    clip_length: int,
    verbose: bool,
) -> None:
    """Turn PUBLISHED, a .pth file of VELoRA's authors, into the checkpoint folder OUT.

    The model computes what the published code does for one clip at a time (compat="reference"). Every
    tensor is taken over by name and shape; a missing or an unknown one is an error that names it.
    """
    from velora_edge.model.checkpoint import save_checkpoint
    from velora_edge.model.config import read_labels
    from velora_edge.model.published import import_published

    imported = import_published(
        published,
        labels=read_labels(labels) if labels is not None else None,
        heads=heads,
        fusion_heads=fusion_heads,
        alpha=alpha,
        clip_length=clip_length,
    )
    run = {"imported_from": published.name, "epoch": imported.epoch}
    save_checkpoint(imported.model, out, include_base=True, run=run)
    config = imported.model.config
    unused = sum(len(names) for names in imported.unused.values())
    click.echo(
        f"{out}: {imported.used} tensors taken over, {unused} without effect on a prediction; "
        f"{config.image_size[1]}x{config.image_size[0]} images, {len(config.labels)} classes, "
        f"LoRA rank {config.lora.rank}"
    )
    if verbose:
        for part, names in imported.unused.items():
            click.echo(f"without effect in {part}: {', '.join(names)}")
    click.echo(f"next: velora export {out} {out.name}.velora")
