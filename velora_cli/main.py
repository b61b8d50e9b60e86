"""The front door: `velora <command>`. A command's module is imported when it is called, not before."""

from __future__ import annotations

import importlib
import sys

import click

from velora_edge import __version__
from velora_edge.console import run

# name: (module, attribute, one line for --help)
COMMANDS = {
    "live": ("velora_cli.live.live", "command", "recognise what two cameras, or two recordings, show"),
    "demo": ("velora_cli.live.demo", "command", "replay the packaged recording through the packaged model"),
    "record": ("velora_cli.live.record", "command", "record cameras to a folder that can be replayed"),
    "info": ("velora_cli.recordings.info", "command", "tell what a recording, a bundle or an engine is"),
    "convert": (
        "velora_cli.recordings.convert",
        "command",
        "write events in another format, or from a video",
    ),
    "dataset": ("velora_cli.training.dataset", "command", "look at a data set, or pack it for training"),
    "pretrain": ("velora_cli.training.pretrain", "command", "train a tower of our own on single images"),
    "train": ("velora_cli.training.train", "command", "tune a model on recordings"),
    "eval": ("velora_cli.training.eval", "command", "tell how well a model knows a data set's labels"),
    "export": ("velora_cli.export", "command", "turn a checkpoint into a bundle"),
    "import-checkpoint": (
        "velora_cli.training.import_checkpoint",
        "command",
        "turn a checkpoint that VELoRA's authors published into one of ours",
    ),
    "build": ("velora_cli.build", "command", "build a bundle's TensorRT engines for this machine"),
    "cameras": ("velora_cli.live.cameras", "command", "list the cameras that are attached"),
    "sync": ("velora_cli.recordings.sync", "command", "find the offset between events and a video"),
    "doctor": ("velora_cli.doctor", "command", "tell what this machine has, and what is missing"),
}


def load_command(name: str) -> click.Command:
    """A command of `COMMANDS`, its module imported."""
    module, attribute, _ = COMMANDS[name]
    command = getattr(importlib.import_module(module), attribute)
    assert isinstance(command, click.Command)
    return command


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        return load_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, line) for name, (_, _, line) in COMMANDS.items()])


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:  velora demo  |  velora info recording.raw  |  "
    "velora live demo --events recording.raw --rgb video.mp4",
)
@click.version_option(__version__, prog_name="velora")
def velora() -> None:
    """Recognise what happens in front of an RGB camera and an event camera, live."""


def main() -> None:
    """Entry point of `velora`."""
    sys.exit(run(velora, name="velora"))


def live() -> None:
    """Entry point of `velora-live`."""
    sys.exit(run(load_command("live"), name="velora-live"))


if __name__ == "__main__":
    main()
