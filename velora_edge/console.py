"""What every command shares at its edge with the shell: exit codes, one-line errors, progress, rare notes."""

from __future__ import annotations

import contextlib
import sys
import threading
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


class StrideType(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """Pairs from one of a clip's pairs to the next: a number from 1 on, or `auto`."""

    name = "N"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | str:
        """Read the number."""
        text = str(value)
        if text == "auto":
            return text
        if not (text.isascii() and text.isdigit() and int(text) > 0):
            self.fail(f"expected a number of pairs from 1 on, or auto, got {text!r}", param, ctx)
        return int(text)


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


class RateLimitedNotes:
    """Lines for people about what may happen thousands of times: one a minute of each kind, the rest counted.

    Callable from any thread.

    Args:
        note: gets the lines.
        now_us: a monotonic clock.
    """

    PERIOD_US = 60_000_000
    MOST_KINDS = 64

    def __init__(self, note: Callable[[str], None], now_us: Callable[[], int]) -> None:
        self._note, self._now_us = note, now_us
        self._lock = threading.Lock()
        self._told: dict[str, tuple[int, int]] = {}

    def is_due(self, kind: str) -> bool:
        """Whether a line of the kind would be told now; asking counts nothing."""
        with self._lock:
            told = self._told.get(kind)
            return told is None or self._now_us() - told[0] >= self.PERIOD_US

    def __call__(self, kind: str, line: str) -> bool:
        """Tell a line unless one of its kind was told within the last minute; whether it was told."""
        with self._lock:
            now_us = self._now_us()
            told_us, left_out = self._told.get(kind, (None, 0))
            is_due = told_us is None or now_us - told_us >= self.PERIOD_US
            is_known = kind in self._told or len(self._told) < self.MOST_KINDS
            if not (is_due and is_known):
                if told_us is not None:
                    self._told[kind] = told_us, left_out + 1
                return False
            self._told[kind] = now_us, 0
        self._note(f"{line} ({left_out} more since the last such line)" if left_out else line)
        return True


def note(line: str) -> None:
    """A line for people that is no result: to standard error."""
    click.echo(f"velora: {line}", err=True)
