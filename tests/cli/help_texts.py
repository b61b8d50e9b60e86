"""The `--help` of every command as text, and the files that hold it: `make help-texts` writes them anew."""

from __future__ import annotations

from pathlib import Path

import click

from velora_cli.main import velora

FOLDER = Path(__file__).with_name("help")
COLUMNS = 100


def all_commands() -> dict[str, click.Context]:
    """Every command and group by the words that call it, as called on a terminal of 100 columns."""
    found: dict[str, click.Context] = {}
    pending = [_context(velora, "velora", None)]
    while pending:
        context = pending.pop()
        found[context.command_path] = context
        if isinstance(context.command, click.Group):
            for name in context.command.list_commands(context):
                child = context.command.get_command(context, name)
                assert child is not None
                pending.append(_context(child, name, context))
    return found


def _context(command: click.Command, name: str, parent: click.Context | None) -> click.Context:
    sizes = {"terminal_width": COLUMNS, "max_content_width": COLUMNS}
    return click.Context(command, parent, name, **sizes, **command.context_settings)


def help_of(context: click.Context) -> str:
    """What `--help` prints."""
    return context.command.get_help(context) + "\n"


def path_of(words: str) -> Path:
    """Where the text of a command is kept."""
    return FOLDER / (words.replace(" ", "_") + ".txt")


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for old in FOLDER.glob("*.txt"):
        old.unlink()
    for words, context in all_commands().items():
        path_of(words).write_text(help_of(context), encoding="utf-8")
