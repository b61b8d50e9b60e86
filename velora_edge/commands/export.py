"""`velora export`: a checkpoint to a bundle."""

from __future__ import annotations

from pathlib import Path

import click

_STEPS = 7


class _Steps:
    """Numbers the lines of an export as they come."""

    def __init__(self) -> None:
        self._done = 0

    def __call__(self, line: str) -> None:
        self._done += 1
        click.echo(f"[{self._done}/{_STEPS}] {line}", err=True)


@click.command(
    epilog="Examples:  velora export runs/poker/best poker.velora  |  "
    "velora export runs/poker/best poker.velora --name poker-v2"
)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--name", help="The model's name; by default that of OUT.")
@click.option(
    "--labels",
    type=click.Path(path_type=Path),
    help="Other class names than the checkpoint's: a text file, one a line.",
)
def command(checkpoint: Path, out: Path, name: str | None, labels: Path | None) -> None:
    """Turn CHECKPOINT, a folder that training or import wrote, into the bundle OUT (NAME.velora).

    LoRA is merged, five ONNX graphs are written over one file of weights, and their logits are compared
    with the model's own before the bundle is moved to its place.
    """
    from velora_export.bundle_export import export_bundle

    from velora_edge.model.checkpoint import load_model, read_checkpoint
    from velora_edge.model.labels import read_labels

    description = read_checkpoint(checkpoint)
    names = read_labels(labels) if labels is not None else None
    bundle = export_bundle(
        load_model(checkpoint),
        out,
        name=name or out.name.removesuffix(".velora"),
        trained=description.trained,
        labels=names,
        event=description.inputs.event,
        rgb=description.inputs.rgb,
        stride=description.inputs.stride,
        run=description.run,
        accuracy=description.accuracy,
        progress=_Steps(),
    )
    parity = bundle.manifest.parity["fp32"]
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    click.echo(
        f"{bundle.path}: {size / 1e6:.1f} MB, {len(bundle.manifest.labels)} labels, "
        f"clips of {bundle.manifest.clip_length}, {'trained' if description.trained else 'random weights'}"
    )
    click.echo(
        f"largest difference of a logit: merged {parity['merged']:.1e}, ONNX Runtime {parity['onnx']:.1e}, "
        f"streaming {parity['streaming']:.1e} (allowed {parity['tolerance']:.0e}; {parity['clips']} clips, "
        f"{parity['source']})"
    )
    click.echo(f"next: velora-live {bundle.path} --events RECORDING --rgb VIDEO")
