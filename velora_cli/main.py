"""Entry points `velora <command>` and `velora-live`; a command's module is imported when it is called."""

from __future__ import annotations

import sys

import click

from velora_edge import __version__
from velora_edge.console import run
from velora_edge.extensions import Extension, Registry

_LIVE, _FILES, _TRAINING = "velora_cli.live.", "velora_cli.recordings.", "velora_cli.training."
COMMANDS = Registry(
    "velora.commands",
    [
        Extension("live", f"{_LIVE}live:command", "recognise what two cameras, or two recordings, show"),
        Extension("demo", f"{_LIVE}live:demo", "replay the packaged recording through the packaged model"),
        Extension("record", f"{_LIVE}record:command", "record cameras to a folder that can be replayed"),
        Extension(
            "predict", f"{_FILES}predict:command", "predict an archive of recordings, to Parquet files"
        ),
        Extension("info", f"{_FILES}info:command", "tell what a recording, a bundle or an engine is"),
        Extension("convert", f"{_FILES}convert:command", "write events in another format, or from a video"),
        Extension("dataset", f"{_TRAINING}dataset:command", "look at a data set, or pack it for training"),
        Extension("init", f"{_TRAINING}init:command", "write a training configuration that fits a data set"),
        Extension("pretrain", f"{_TRAINING}train:pretrain", "train a tower of our own on single images"),
        Extension("train", f"{_TRAINING}train:command", "tune a model on recordings"),
        Extension("eval", f"{_TRAINING}eval:command", "tell how well a model knows a data set's labels"),
        Extension("export", "velora_cli.export:command", "turn a checkpoint into a bundle"),
        Extension(
            "import-checkpoint",
            f"{_TRAINING}import_checkpoint:command",
            "turn a checkpoint that VELoRA's authors published into one of ours",
        ),
        Extension("build", "velora_cli.build:command", "build a bundle's TensorRT engines for this machine"),
        Extension("bench", "velora_cli.bench:command", "measure what this machine does with a model"),
        Extension("cameras", "velora_cli.doctor:cameras", "list the cameras that are attached"),
        Extension("sync", f"{_FILES}sync:command", "find the offset between events and a video"),
        Extension("doctor", "velora_cli.doctor:command", "tell what this machine has, and what is missing"),
    ],
)
"""The help is the line in `velora --help`; the target is a click command."""


def load_command(name: str) -> click.Command | None:
    """A command of `COMMANDS` or of a plugin, its module imported; None if there is none of this name.

    Raises:
        PluginError: if a plugin brings it, and cannot be used.
    """
    found = COMMANDS.find(name)
    if found is None:
        return None
    command = found.load()
    assert isinstance(command, click.Command)
    return command


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return [command.name for command in COMMANDS.all()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return load_command(cmd_name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(command.name, command.help) for command in COMMANDS.all()])
        for trouble in COMMANDS.troubles:
            formatter.write_paragraph()
            formatter.write_text(trouble)


@click.group(
    cls=_LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Examples:  velora demo  |  velora info demo  |  "
    "velora live demo --events velora_edge/assets/demo.raw",
)
@click.version_option(__version__, prog_name="velora")
def velora() -> None:
    """Recognise what happens in front of an RGB camera and an event camera, live."""


def main() -> None:
    """Entry point of `velora`."""
    sys.exit(run(velora, name="velora"))


def live() -> None:
    """Entry point of `velora-live`."""
    command = load_command("live")
    assert command is not None
    sys.exit(run(command, name="velora-live"))


if __name__ == "__main__":
    main()
