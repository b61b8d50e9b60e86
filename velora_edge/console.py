"""What every command shares at its edge with the shell: exit codes, errors, options, progress, notes."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import threading
from fractions import Fraction
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import click

from velora_edge.errors import InputError, VeloraError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

Command = TypeVar("Command", bound="Callable[..., Any]")


def run(
    command: click.Command,
    args: Sequence[str] | None = None,
    name: str | None = None,
    defaults: Callable[[], dict[str, Any]] | None = None,
) -> int:
    """Run a command to its end and return its exit code.

    Our own errors become one line on standard error; Ctrl-C becomes exit code 130. Any other exception
    is a bug of ours and keeps its traceback.

    Args:
        command: to be run.
        args: its arguments; None: the process's.
        name: of the program, for people.
        defaults: gives values of options that the arguments do not give, by their parameters' names.
    """
    streams = sys.stdout, sys.stderr
    try:
        result = command.main(
            args=None if args is None else list(args),
            prog_name=name,
            standalone_mode=False,
            default_map=None if defaults is None else defaults(),
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
    except SystemExit:
        if sys.stdout is streams[0]:
            raise
        sys.stdout, sys.stderr = streams  # which click has replaced: the pipe was closed by its reader
        _drop_output()
        return 0
    return result if isinstance(result, int) else 0


@contextlib.contextmanager
def printing() -> Iterator[None]:
    """For a command that has more to do than to print: it goes on where the reader has closed the pipe."""
    try:
        yield
    except (BrokenPipeError, SystemExit):  # click's echo raises the one, rich exits
        _drop_output()


def _drop_output() -> None:
    """Let what is still printed go nowhere: whoever read it has closed the pipe, and has what it wanted."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def add_options(command: Command, options: Sequence[Callable[[Command], Command]]) -> Command:
    """The command with options that several commands have, in this order in its `--help`."""
    for option in reversed(options):
        command = option(command)
    return command


class HeadedOption(click.Option):
    """An option under a heading of `--help`."""

    def __init__(self, *given: Any, heading: str, **named: Any) -> None:
        super().__init__(*given, **named)
        self.heading = heading


class HeadedCommand(click.Command):
    """A command whose `--help` has its options under headings, in the order in which these first come."""

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a paragraph for each heading; what has none comes last."""
        rows: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            row = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if row is not None:
                rows.setdefault(getattr(param, "heading", "Other"), []).append(row)
        for heading, group in rows.items():
            with formatter.section(heading):
                formatter.write_dl(group)


def under(heading: str) -> Any:
    """As `click.option`, for options under a heading."""
    return partial(click.option, cls=HeadedOption, heading=heading)


class SensorSize(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # generic from click 8.4 on
    """WxH, as (width, height)."""

    name = "WxH"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Read the size."""
        found = re.fullmatch(r"([0-9]{1,5})[xX]([0-9]{1,5})", str(value))
        if found is None or not (int(found[1]) and int(found[2])):
            self.fail(f"expected WIDTHxHEIGHT in pixels, such as 1280x720, got {value!r}", param, ctx)
        return int(found[1]), int(found[2])


class Rate(click.ParamType):  # type: ignore[type-arg,unused-ignore]  # as above
    """A positive number, kept exact."""

    name = "HZ"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Fraction:
        """Read the number."""
        try:
            # Digits alone, and few of them: Fraction("1e999999999") would take all memory.
            rate = Fraction(str(value)) if re.fullmatch(r"[0-9./]{1,40}", str(value)) else Fraction(0)
        except (ValueError, ZeroDivisionError):
            rate = Fraction(0)
        if not 0 < rate <= 1_000_000:
            self.fail(f"expected windows a second, above 0 and up to 1000000, got {value!r}", param, ctx)
        return rate


overwrite_option = click.option("--overwrite", is_flag=True, help="Replace what is there under that name.")


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace what a command is to make; files that its options name are replaced.

    Raises:
        InputError: if there is something, other than an empty folder, and nobody asked to replace it.
    """
    is_free = not path.exists() or (path.is_dir() and not any(path.iterdir()))
    if not (is_free or overwrite):
        raise InputError(
            "exists already", path=path, remedy="give another name, or --overwrite to replace it"
        )


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
