"""`velora train CONFIG` and `velora pretrain CONFIG`: from clips to a tuned model, and a tower of our own."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from velora_edge.console import run

if TYPE_CHECKING:
    from velora_edge.config import Section
    from velora_edge.train.cost import Cost, Gpu
    from velora_edge.train.session import Outcome
    from velora_edge.train.settings import TrainConfig

WORKER = "velora_cli.training.train"
"""This command, as each process of a run is started."""


@click.command(
    epilog="Examples:  velora train configs/demo.yaml  |  "
    "velora train configs/demo.yaml model.tuning=full run.name=demo_full  |  "
    "velora train configs/pokerevent.yaml --estimate  |  velora train --print-config  |  "
    "velora train configs/demo.yaml --processes 4 --hosts 2 --host 0 --main 10.0.0.1:29500"
)
@click.argument("config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--print-config", is_flag=True, help="Print every key with its value, default and meaning, and leave."
)
@click.option("--estimate", is_flag=True, help="Compute how long GPUs take, and how much memory, and leave.")
@click.option("--resume", is_flag=True, help="Go on with the run in the run's folder, exactly where it was.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is in the run's folder.")
@click.option(
    "--processes", type=click.IntRange(1), help="On this host; by default one for each GPU, or one."
)
@click.option("--hosts", type=click.IntRange(1), default=1, help="That take part; start the command on each.")
@click.option("--host", type=int, default=0, help="This host's number, from 0.")
@click.option("--main", metavar="HOST:PORT", help="Where several hosts meet: an address of host 0.")
def command(
    config: str | None,
    overrides: tuple[str, ...],
    print_config: bool,
    estimate: bool,
    resume: bool,
    overwrite: bool,
    processes: int | None,
    hosts: int,
    host: int,
    main: str | None,
) -> int:
    """Train a model as CONFIG says, on the CPU, one GPU or several.

    Every key of the configuration can be given anew: model.lora.rank=8. The run's folder gets the
    checkpoints best and last, a record of all figures, and the state that --resume goes on from.
    velora init writes a CONFIG for a set of your own.
    """
    from velora_edge.config import load_config
    from velora_edge.train.settings import TrainConfig

    if print_config:
        _print_config(config, TrainConfig, overrides)
        return 0
    if config is None:
        raise _no_config()
    if estimate:
        _estimate(load_config(config, TrainConfig, overrides, is_used=False))
        return 0
    from velora_edge.train.session import Launch, count_processes, is_launched, start

    settings = load_config(config, TrainConfig, overrides)
    launch = Launch(processes, hosts, host, main)
    launch.check()
    if not is_launched():
        count = count_processes(launch, on_cpu=settings.train.device == "cpu")
        if count * hosts > 1:
            flags = [*(["--resume"] if resume else []), *(["--overwrite"] if overwrite else [])]
            return start(launch, count, WORKER, [config, *overrides, *flags])
    _train(settings, resume, overwrite)
    return 0


def _train(settings: TrainConfig, resume: bool, overwrite: bool) -> None:
    from velora_edge.train.session import train

    begin = time.monotonic()
    outcome = train(settings, resume=resume, overwrite=overwrite, say=lambda line: click.echo(line, err=True))
    if outcome.is_main:
        click.echo(f"{_describe_best(outcome, settings.train.choose)}; {time.monotonic() - begin:.0f} s")
        click.echo(f"next: velora eval {outcome.folder} --data {outcome.data} --ablate")
        how = " --stride auto" if settings.clip.sampling == "spread" else ""
        click.echo(f"      velora export {outcome.folder}/best {settings.run.name}.velora{how}")


def _describe_best(outcome: Outcome, chosen_by: str) -> str:
    """The best checkpoint, its figure, and what chose it."""
    best, where = outcome.best, f"{outcome.folder}/best"
    if chosen_by == "test":
        return (
            f"{where}: top-1 of the test part {best['top1']:.2%} after epoch {best['epoch']}, "
            "which was chosen by it: no figure of unseen recordings"
        )
    figure = f"validation top-1 {best['top1']:.2%} " if "top1" in best else ""
    return f"{where}: {figure}after epoch {best['epoch']}" + (", the last" if chosen_by == "last" else "")


def _print_config(
    path: str | None,
    schema: type[Section],
    overrides: tuple[str, ...],
    needed: dict[str, Any] | None = None,
) -> None:
    """Print a configuration with all its keys; without a file, the defaults, and `needed` beside them."""
    from velora_edge.config import build_config, commented_yaml, load_config

    name = "pretrain" if needed else "train"
    if path is None:
        tree = {"run": {"name": "my_run"}, "data": {"path": "synthetic"}, **(needed or {})}
        config = build_config(tree, schema)
    else:
        config = load_config(path, schema, overrides, is_used=False)
    click.echo(f"# velora {name} {path or 'FILE.yaml'}\n#\n# Every key, with what it means.\n")
    click.echo(commented_yaml(config), nl=False)


def _estimate(settings: TrainConfig) -> None:
    """Print what a run takes; computed, and the assumptions with it."""
    from rich.console import Console
    from rich.table import Table

    from velora_edge.data.clips.clips import split_items
    from velora_edge.train.cost import GPUS, SHARE, estimate_cost
    from velora_edge.train.session import open_data

    cost, model = estimate_cost(settings), settings.model
    height, width = model.image_size
    console = Console()
    console.print(
        f"{model.backbone.name}, {model.tuning}, clips of {model.clip_length} pairs of {width}x{height}: "
        f"{cost.flops / 1e12:.2f} TFLOP a clip, {cost.memory_bytes / 1e9:.1f} GB with "
        f"{settings.train.batch_size} clips a step, {cost.parameters.trained:,} trained parameters",
        highlight=False, soft_wrap=True,
    )  # fmt: skip
    clips = None
    if not settings.data.problems():
        source = open_data(settings)
        clips = len(split_items(source.items, settings.data.split)["train"])
        source.close()
    table = Table(
        "GPU", "memory", "1,000 clips", *([] if clips is None else [f"{settings.train.epochs} epochs"])
    )
    for gpu in GPUS:
        whole = [] if clips is None else [_time(cost.seconds(clips * settings.train.epochs, gpu))]
        table.add_row(gpu.name, _room(cost, gpu), _time(cost.seconds(1000, gpu)), *whole)
    console.print(table)
    console.print(
        f"Computed, not measured: {SHARE:.0%} of each GPU's peak is assumed, and clips that are read in "
        "time; docs/guides/training.md has the formula.",
        highlight=False, soft_wrap=True,
    )  # fmt: skip


def _room(cost: Cost, gpu: Gpu) -> str:
    parts = cost.parts_for(gpu)
    if parts is None:
        return f"{gpu.memory_gb:.0f} GB are too little: train.gradient_checkpointing=true"
    needed = "" if parts == cost.accumulate else f" with train.accumulate={parts}"
    return f"{gpu.memory_gb:.0f} GB are enough{needed}"


def _time(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def _no_config() -> click.UsageError:
    return click.UsageError(
        "Missing argument 'CONFIG': configs/ holds some, and velora init SET writes one for a set of yours."
    )


if __name__ == "__main__":
    sys.exit(run(command, name="velora train"))


@click.command(epilog="Example:  velora pretrain configs/demo_pretrain.yaml train.epochs=10")
@click.argument("config", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--print-config", is_flag=True, help="Print every key with its value, default and meaning, and leave."
)
@click.option("--overwrite", is_flag=True, help="Replace a tower that is in the run's folder.")
def pretrain(config: str | None, overrides: tuple[str, ...], print_config: bool, overwrite: bool) -> None:
    """Train a vision transformer to tell single images, as CONFIG says.

    Leaves its weights in RUN/tower.safetensors: name them as model.backbone.weights in a training
    configuration.
    """
    from velora_edge.config import load_config
    from velora_edge.train.settings import PretrainConfig

    if print_config:
        tower = {"name": "vit_tiny_patch16_224", "image_size": [64, 64]}
        _print_config(config, PretrainConfig, overrides, {"tower": tower})
        return
    if config is None:
        raise _no_config()
    from velora_edge.train.pretrain import pretrain

    start = time.monotonic()
    settings = load_config(config, PretrainConfig, overrides)
    made = pretrain(settings, overwrite=overwrite, say=lambda line: click.echo(line, err=True))
    figures = ", ".join(f"{name} {value:.4f}" for name, value in made.figures.items())
    click.echo(f"{made.weights}: {figures}; {time.monotonic() - start:.0f} s")
    click.echo(f"next: velora train CONFIG model.backbone.weights={made.weights}")
