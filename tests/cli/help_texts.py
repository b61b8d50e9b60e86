"""The `--help` of every command as text, and the files that hold it: `make help-texts` writes them anew."""

from __future__ import annotations

from pathlib import Path

import click

from velora_cli.main import velora

FOLDER = Path(__file__).with_name("help")


def all_commands() -> dict[str, click.Command]:
    """Every command and group by the words that call it."""
    found: dict[str, click.Command] = {}
    pending: list[tuple[str, click.Command]] = [("velora", velora)]
    while pending:
        words, command = pending.pop()
        found[words] = command
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                assert child is not None
                pending.append((f"{words} {name}", child))
    return found


def help_of(words: str, command: click.Command) -> str:
    """What `--help` prints on a terminal of 100 columns."""
    context = click.Context(
        command, info_name=words, terminal_width=100, max_content_width=100, **command.context_settings
    )
    return command.get_help(context) + "\n"


def path_of(words: str) -> Path:
    """Where the text of a command is kept."""
    return FOLDER / (words.replace(" ", "_") + ".txt")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for words, command in all_commands().items():
        path_of(words).write_text(help_of(words, command), encoding="utf-8")
