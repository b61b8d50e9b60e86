"""What every command shares at its edge with the shell: exit codes, one-line errors, progress."""

from __future__ import annotations

import contextlib
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import click

from velora_edge.errors import VeloraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

Command = TypeVar("Command", bound="Callable[..., Any]")


def run(command: click.Command, args: Sequence[str] | None = None, name: str | None = None) -> int:
    """Run a command to its end and return its exit code.

    Our own errors become one line on standard error; Ctrl-C becomes exit code 130. Any other exception
    is a bug of ours and keeps its traceback.
    """
    try:
        result = command.main(
            args=None if args is None else list(args), prog_name=name, standalone_mode=False
        )
    except VeloraError as error:
        click.echo(f"error: {error}", err=True)
        return error.exit_code
    except click.exceptions.Abort:
        click.echo("stopped", err=True)
        return 130
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    return result if isinstance(result, int) else 0


def add_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """The command with options that several commands have, in this order in its `--help`."""
    for option in reversed(options):
        command = option(command)
    return command


@contextlib.contextmanager
def progress(total: int, what: str, *, quiet: bool = False) -> Iterator[Callable[[], None]]:
    """A progress bar on standard error; gives a function to be called once for each of `total` things."""
    if quiet:
        yield lambda: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)
