"""`velora build`: a bundle's TensorRT engines for this machine's GPU."""

from __future__ import annotations

from pathlib import Path

import click

from velora_edge.bundle import GRAPHS, open_bundle
from velora_edge.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16", "int8")


@click.command(
    "build",
    epilog="Example:  velora build model.velora  then  velora-live model.velora --backend tensorrt ...",
)
@click.argument("model", metavar="BUNDLE")
@click.option(
    "--for",
    "target",
    type=click.Choice(["tensorrt", "cpu"]),
    default="tensorrt",
    show_default=True,
    help="cpu: builds nothing; measures whether onnxruntime or openvino is faster, for --backend auto.",
)
@click.option(
    "--threads",
    type=click.IntRange(0),
    default=0,
    metavar="N",
    help="With --for cpu: as velora-live has them.",
)
@click.option(
    "--precision",
    type=click.Choice(PRECISIONS),
    help="What the bundle must be; TensorRT takes the types that the graphs have.  [default: the bundle's]",
)
@click.option(
    "--low-memory", is_flag=True, help="For a small Jetson: smaller pools, less search, no clip engine."
)
@click.option(
    "--version-compatible", is_flag=True, help="Engines for newer TensorRT of the same major version too."
)
@click.option(
    "--hardware-compatible", is_flag=True, help="Engines for other GPUs from Ampere on too; not on a Jetson."
)
@click.option(
    "--workspace", "workspace_mb", type=click.IntRange(1), metavar="MB", help="The most that a layer may use."
)
@click.option(
    "--no-clip", is_flag=True, help="Leave out the clip's engine, which a live stream does not need."
)
@click.option(
    "--clips", type=click.Path(path_type=Path), metavar="FILE.npz", help="Clips to compare on, not noise."
)
@click.option("--force", is_flag=True, help="Build again; keep an engine that is not close to ONNX Runtime.")
def command(
    model: str,
    target: str,
    threads: int,
    precision: str | None,
    low_memory: bool,
    version_compatible: bool,
    hardware_compatible: bool,
    workspace_mb: int | None,
    no_clip: bool,
    clips: Path | None,
    force: bool,
) -> None:
    """Build BUNDLE's TensorRT engines on this machine, for this machine.

    One engine for each tower, the head and the clip. Each is compared with ONNX Runtime on the same clips;
    the figures, the engine's hash and its origin go into the manifest. What is already there is kept.
    """
    if target == "cpu":
        _measure_on_the_cpu(model, threads)
        return
    from velora_export.tensorrt_builder import MEGABYTE, BuildOptions
    from velora_export.tensorrt_engines import BundleBuilder
    from velora_export.tensorrt_parity import noise_clips, read_clips
    from velora_export.tensorrt_progress import BuildProgress

    bundle = open_bundle(model)
    manifest = bundle.manifest
    if precision is not None and precision != manifest.precision:
        raise InputError(
            f"the graphs are {manifest.precision}, and TensorRT takes the types that they have",
            path=bundle.path,
            remedy=f"export the model with --precision {precision} and build that",
        )
    options = BuildOptions(
        low_memory=low_memory,
        version_compatible=version_compatible,
        hardware_compatible=hardware_compatible,
        workspace_bytes=None if workspace_mb is None else workspace_mb * MEGABYTE,
    )
    compared = noise_clips(manifest) if clips is None else read_clips(clips, manifest)
    graphs = [graph for graph in GRAPHS if graph != "clip" or not (no_clip or low_memory)]
    with BundleBuilder(bundle, options, compared) as builder, BuildProgress() as progress:
        progress.say(f"{builder.machine}; log: {builder.log}")
        for built in builder.build(graphs, progress, force=force):
            progress.say(built.describe())
    click.echo(f"{len(graphs)} engines in {bundle.path / 'engines'}")
    click.echo(f"next: velora-live {bundle.path} --backend tensorrt --events SOURCE --rgb SOURCE")


def _measure_on_the_cpu(model: str, threads: int) -> None:
    from velora_runtime.engines.base import EngineOptions
    from velora_runtime.engines.cpu_timing import measure, write_timing

    timing = measure(open_bundle(model), EngineOptions("cpu", threads))
    path = write_timing(timing)
    click.echo(f"{timing.describe()}; --backend auto takes {timing.best} ({path})")
