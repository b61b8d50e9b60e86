"""`velora train CONFIG` and `velora pretrain CONFIG`: from clips to a tuned model, and a tower of our own."""

from __future__ import annotations

import sys
import time

import click

from velora_edge.console import run

WORKER = "velora_cli.training.train"
"""This command, as each process of a run is started."""


@click.command(
    epilog="Examples:  velora train configs/demo.yaml  |  "
    "velora train configs/demo.yaml model.tuning=full run.name=demo_full  |  "
    "velora train configs/demo.yaml --processes 4 --hosts 2 --host 0 --main 10.0.0.1:29500"
)
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--resume", is_flag=True, help="Go on with the run in the run's folder, exactly where it was.")
@click.option("--overwrite", is_flag=True, help="Replace a run that is in the run's folder.")
@click.option(
    "--processes", type=click.IntRange(1), help="On this host; by default one for each GPU, or one."
)
@click.option("--hosts", type=click.IntRange(1), default=1, help="That take part; start the command on each.")
@click.option("--host", type=int, default=0, help="This host's number, from 0.")
@click.option("--main", metavar="HOST:PORT", help="Where several hosts meet: an address of host 0.")
def command(
    config: str,
    overrides: tuple[str, ...],
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
    """
    from velora_edge.config import load_config
    from velora_edge.train.session import Launch, count_processes, is_launched, start
    from velora_edge.train.settings import TrainConfig

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


def _train(settings: object, resume: bool, overwrite: bool) -> None:
    from velora_edge.train.session import train
    from velora_edge.train.settings import TrainConfig

    assert isinstance(settings, TrainConfig)
    begin = time.monotonic()
    outcome = train(settings, resume=resume, overwrite=overwrite, say=lambda line: click.echo(line, err=True))
    if outcome.is_main:
        best = outcome.best
        click.echo(
            f"{outcome.folder}/best: validation top-1 {best['top1']:.2%} after epoch {best['epoch']}; "
            f"{time.monotonic() - begin:.0f} s"
        )
        click.echo(f"next: velora eval {outcome.folder} --data {settings.data.path} --ablate")
        click.echo(f"      velora export {outcome.folder}/best {settings.run.name}.velora")


if __name__ == "__main__":
    sys.exit(run(command, name="velora train"))


@click.command(epilog="Example:  velora pretrain configs/demo_pretrain.yaml train.epochs=10")
@click.argument("config")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--overwrite", is_flag=True, help="Replace a tower that is in the run's folder.")
def pretrain(config: str, overrides: tuple[str, ...], overwrite: bool) -> None:
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
