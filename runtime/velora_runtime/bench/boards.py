"""Results by board: the file that a pull request adds, and the page of docs that is made of all of them."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_runtime.bench.result import read_result, write_result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_runtime.bench.result import Result

HEAD = """# Measured boards

Made by `python benchmarks/run.py --boards` of the files in `benchmarks/boards/`, each of which
`velora bench --submit` wrote on the board itself. Nothing here is typed in by hand. How it is measured:
[velora bench](guides/bench.md).
"""


def board_name(result: Result) -> str:
    """The name of a result's file: board, power mode, model and precision."""
    machine, model = result.machine, result.models[0]
    parts = (machine.board, machine.power_mode, model.name, model.precision)
    return re.sub(r"[^a-z0-9]+", "-", " ".join(part for part in parts if part).lower()).strip("-")


def write_board(result: Result, folder: Path) -> Path:
    """Write a result where boards' results lie; gives the file.

    Raises:
        InputError: if it is no result that others can use, or cannot be written.
    """
    if result.quick or result.live is None:
        raise InputError(
            "expected a whole benchmark, got --quick or one without live runs",
            remedy="run velora bench MODEL --submit without --quick and --only",
        )
    path = folder / f"{board_name(result)}.json"
    write_result(result, path)
    return path


def boards_page(folder: Path) -> str:
    """All results as one page of Markdown; the verdict stands beside each.

    Raises:
        InputError: if one of the files is no result.
    """
    results = [read_result(path) for path in sorted(folder.glob("*.json"))]
    return "\n".join([HEAD, *_table(results)]) + "\n"


def _table(results: list[Result]) -> Iterator[str]:
    if not results:
        yield "No board has been measured yet."
        return
    yield "| board | JetPack, mode | model | engine | fps, Mev/s | p50 / p99 ms | missed | mJ | highest fps | verdict |"
    yield "|---|---|---|---|---|---|---|---|---|---|"
    for result in results:
        yield "| " + " | ".join(_row(result)) + " |"
    yield ""
    for result in results:
        yield f"- {result.machine.board}, {result.date}: `{result.reproduce}`"
        for reason in result.verdict.reasons:
            yield f"  - {reason.text}"


def _row(result: Result) -> Iterator[str]:
    machine, live, power = result.machine, result.live, result.power
    yield machine.board
    yield ", ".join(part for part in (machine.jetpack, machine.power_mode) if part) or "-"
    yield f"{result.models[0].name}, {result.models[0].precision}"
    if live is None:
        yield from ("-",) * 4
    else:
        latency = live.exposure_ms or live.last_event_ms
        yield live.engine
        yield f"{live.fps:g}, {live.event_rate_hz / 1e6:g}"
        yield "-" if latency is None else f"{latency.p50:.1f} / {latency.p99:.1f}"
        yield f"{sum(run.missed for run in live.runs)} of {sum(run.due for run in live.runs)}"
    energy = None if power is None else power.mj_per_decision
    yield "-" if energy is None else f"{energy:.1f}"
    highest = [limit.highest for limit in result.limits if limit.of == "fps" and limit.highest is not None]
    yield f"{highest[0]:.0f}" if highest else "-"
    yield result.verdict.outcome
