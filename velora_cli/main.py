"""Entry points `velora <command>` and `velora-live`; a command's module is imported when it is called.

`velora.toml` in the working folder gives options of a place (docs/guides/command_line.md).
"""

from __future__ import annotations

import difflib
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from velora_edge import __version__
from velora_edge.console import note, run
from velora_edge.errors import ConfigError, InputError
from velora_edge.extensions import Extension, Registry
from velora_edge.limits import LARGEST_YAML, read_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from click.shell_completion import CompletionItem

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
        Extension("label", f"{_FILES}label:command", "label a recording on a page in the browser"),
        Extension("convert", f"{_FILES}convert:command", "write events in another format, or from a video"),
        Extension("dataset", f"{_TRAINING}dataset:command", "look at a data set, or pack it for training"),
        Extension("init", f"{_TRAINING}init:command", "write a training configuration that fits a data set"),
        Extension("weights", f"{_TRAINING}weights:command", "fetch or convert the weights of a tower"),
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


OF_A_PLACE = "velora.toml"
SHARED_BY = ("live", "record", "predict")
"""Commands that take what stands in `velora.toml` before its first table, where they have such an option."""
_HELP = {"-h", "--help"}


def read_defaults(command: click.Command, name: str) -> dict[str, Any]:
    """Options of a command that `velora.toml` in the working folder gives, by their parameters' names.

    Raises:
        ConfigError: if the file gives an option that there is not, or a value of another form.
    """
    path = Path(OF_A_PLACE)
    if not path.is_file():
        return {}
    if path.stat().st_uid not in (os.getuid(), 0):
        note(f"{path} is passed over: it belongs to another user")
        return {}
    tree = _read_toml(path)
    problems = [
        f"[{table}]: no such command{_near(table, _names())}"
        for table, value in tree.items()
        if isinstance(value, dict) and COMMANDS.find(table) is None
    ]
    shared = {key: value for key, value in tree.items() if not isinstance(value, dict)}
    problems += _unknown_everywhere(shared)
    own = tree.get(name, {})
    if name in SHARED_BY:
        own = {**{key: value for key, value in shared.items() if key in _options(command)}, **own}
    values = dict(_values(command, own, name, problems))
    if problems:
        raise ConfigError(problems, path=path)
    if own:
        note(f"{path} gives {', '.join(own)}")
    return values


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        import tomllib
    except ImportError:  # Python 3.10
        import tomli as tomllib  # type: ignore[import-not-found,no-redef,unused-ignore]
    try:
        return tomllib.loads(read_text(path, most=LARGEST_YAML))
    except (OSError, ValueError) as error:
        raise ConfigError([f"cannot be read as TOML: {error}"], path=path) from error


def _options(command: click.Command) -> dict[str, click.Option]:
    """A command's options by their long names, without dashes before them."""
    return {
        name.removeprefix("--"): option
        for option in command.params
        if isinstance(option, click.Option)
        for name in option.opts
        if name.startswith("--")
    }


def _unknown_everywhere(shared: dict[str, Any]) -> list[str]:
    if not shared:
        return []
    loaded = [command for name in SHARED_BY if (command := load_command(name)) is not None]
    known = {option for command in loaded for option in _options(command)}
    return [
        f"{key}: no option of {', '.join(SHARED_BY)}{_near(key, known)}" for key in shared if key not in known
    ]


def _values(
    command: click.Command, given: dict[str, Any], name: str, problems: list[str]
) -> Iterator[tuple[str, Any]]:
    """Parameters with their values; a group's commands with theirs."""
    children = command.commands if isinstance(command, click.Group) else {}
    known = _options(command)
    for key, value in given.items():
        if key in children and isinstance(value, dict):
            yield key, dict(_values(children[key], value, f"{name}.{key}", problems))
        elif key not in known:
            problems.append(f"[{name}] {key}: no such option{_near(key, [*known, *children])}")
        elif (problem := _misfit(known[key], value)) is not None:
            problems.append(f"[{name}] {key}: {problem}, got {value!r}")
        else:
            option = known[key]
            yield str(option.name), [value] if option.multiple and not isinstance(value, list) else value


def _misfit(option: click.Option, value: Any) -> str | None:
    """What was expected in place of a value; None where it fits."""
    if isinstance(value, bool) or option.is_flag:
        return (
            None
            if isinstance(value, bool) and option.is_flag
            else "expected " + ("true or false" if option.is_flag else "text or a number")
        )
    if isinstance(value, list):
        return None if option.multiple else "expected one value"
    return None if isinstance(value, (str, int, float)) else "expected text or a number"


def _names() -> list[str]:
    return [command.name for command in COMMANDS.all()]


def _near(word: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(word, list(known), n=1)
    return f", did you mean {near[0]}?" if near else ""


class _LazyGroup(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return _names()

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command, with what `velora.toml` gives it."""
        if args and not args[0].startswith("-") and COMMANDS.find(args[0]) is None:
            raise InputError(
                f"no command {args[0]!r}{_near(args[0], _names())}", remedy="velora --help lists them"
            )
        name, command, rest = super().resolve_command(ctx, args)
        if command is not None and name is not None and not _HELP & set(rest):
            ctx.default_map = {name: read_defaults(command, name)}
        return name, command, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names of commands, none of which is imported for that."""
        from click.shell_completion import CompletionItem

        return [
            CompletionItem(command.name, help=command.help)
            for command in COMMANDS.all()
            if command.name.startswith(incomplete)
        ] + click.Command.shell_complete(self, ctx, incomplete)

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
    defaults = None if _HELP & set(sys.argv) else lambda: read_defaults(command, "live")
    sys.exit(run(command, name="velora-live", defaults=defaults))


if __name__ == "__main__":
    main()
