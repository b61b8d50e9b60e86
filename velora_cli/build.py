"""`velora build`: engines of a bundle, for this machine's GPU or for GPUs of other machines."""

from __future__ import annotations

from pathlib import Path

import click

from velora_edge.bundle import GRAPHS, open_bundle
from velora_edge.errors import InputError

PRECISIONS = ("fp32", "fp16", "bf16", "int8", "fp8")
TOWERS = ("rgb", "event", "diff")


def _show_public_key(context: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        from velora_edge.gpu.signing import public_key

        click.echo(public_key())
        context.exit()


@click.command(
    "build",
    epilog="Examples:  velora build my.velora  |  velora build my.velora --for rtx:sm89,sm120",
)
@click.argument("model", metavar="BUNDLE")
@click.option(
    "--for",
    "built_for",
    default="this-gpu",
    show_default=True,
    metavar="TARGET",
    help="this-gpu: TensorRT, on the GPU that will run it.  rtx: TensorRT for RTX, on any machine, for cards "
    "of the RTX 30, 40 and 50 series;  rtx:sm89,sm120: for these alone.  cpu: builds nothing; measures "
    "whether onnxruntime or openvino is faster, for --backend auto.",
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
    "--dla",
    metavar="TOWER[:CORE]",
    help="rgb, event or diff: that tower on a Deep Learning Accelerator (AGX Orin, TensorRT 11.4.1); refused "
    "where its products fall back to the GPU.",
)
@click.option(
    "--no-clip", is_flag=True, help="Leave out the clip's engine, which a live stream does not need."
)
@click.option(
    "--clips", type=click.Path(path_type=Path), metavar="FILE.npz", help="Clips to compare on, not noise."
)
@click.option("--force", is_flag=True, help="Build again; keep an engine that is refused.")
@click.option(
    "--public-key",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_public_key,
    help="Tell what other machines trust this one's engines by, in VELORA_TRUST_ENGINES, and nothing else.",
)
def command(
    model: str,
    built_for: str,
    threads: int,
    precision: str | None,
    low_memory: bool,
    version_compatible: bool,
    hardware_compatible: bool,
    workspace_mb: int | None,
    dla: str | None,
    no_clip: bool,
    clips: Path | None,
    force: bool,
) -> None:
    """Build BUNDLE's engines: one for each tower, the head and the clip.

    The compiled layers are read: an engine that computes in wider types than its graph states, or whose
    towers have attention that is not one kernel, is refused. Where the GPU is there each engine is compared
    with ONNX Runtime on the same clips. Figures, hash and origin go into the manifest. What is already there
    is kept.
    """
    if built_for == "cpu":
        _measure_on_the_cpu(model, threads)
        return
    from velora_export.tensorrt.tensorrt_builder import MEGABYTE, BuildOptions, BuildProgress
    from velora_export.tensorrt.tensorrt_engines import BundleBuilder, rtx_gpus, this_gpu
    from velora_export.tensorrt.tensorrt_parity import noise_clips, read_clips

    from velora_edge.gpu.kinds import default_targets, parse_targets

    is_rtx = built_for.partition(":")[0] == "rtx"
    if not is_rtx and built_for != "this-gpu":
        problem = f"expected this-gpu, rtx, rtx:SM,... or cpu, got {built_for!r}"
        raise InputError(problem, place="--for", remedy="velora build --help has examples")
    if is_rtx and (version_compatible or hardware_compatible or low_memory or dla):
        raise InputError(
            "--version-compatible, --hardware-compatible, --low-memory and --dla are TensorRT's",
            place="--for rtx",
            remedy="leave them out: TensorRT for RTX builds for several GPUs by --for rtx:SM,SM",
        )
    if dla and (version_compatible or hardware_compatible):
        raise InputError(
            "an engine for a DLA is of one TensorRT and one board",
            place="--dla",
            remedy="leave out --version-compatible and --hardware-compatible",
        )
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
        dla=None if dla is None else parse_dla(dla),
    )
    compared = noise_clips(manifest) if clips is None else read_clips(clips, manifest)
    graphs = [graph for graph in GRAPHS if graph != "clip" or not (no_clip or low_memory)]
    if is_rtx:
        named = built_for.partition(":")[2]
        target = rtx_gpus(parse_targets(named) if named else default_targets(manifest.precision))
    else:
        target = this_gpu()
    with BundleBuilder(bundle, options, compared, target) as builder, BuildProgress() as progress:
        progress.say(f"{target}; log: {builder.log}")
        for built in builder.build(graphs, progress, force=force):
            progress.say(built.describe())
    click.echo(f"{len(graphs)} engines in {bundle.path / 'engines'}")
    click.echo(f"next: velora-live {bundle.path} --backend {target.kind.name} --events SOURCE --rgb SOURCE")


def parse_dla(text: str) -> tuple[str, int]:
    """The tower and the number of the accelerator: `rgb` is the first one's.

    Raises:
        InputError: if the text is neither TOWER nor TOWER:CORE.
    """
    tower, _, core = text.partition(":")
    if tower not in TOWERS or not (core or "0").isdecimal():
        problem = f"expected {', '.join(TOWERS)}, or one with a number as in rgb:1, got {text!r}"
        raise InputError(problem, place="--dla", remedy="velora build BUNDLE --dla rgb")
    return tower, int(core or 0)


def _measure_on_the_cpu(model: str, threads: int) -> None:
    from velora_runtime.engines.base import EngineOptions
    from velora_runtime.engines.cpu_timing import measure, write_timing

    timing = measure(open_bundle(model), EngineOptions("cpu", threads))
    path = write_timing(timing)
    click.echo(f"{timing.describe()}; --backend auto takes {timing.best} ({path})")
