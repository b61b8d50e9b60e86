"""A result as text, for people, and results by board as a page of docs."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from velora_edge.errors import InputError
from velora_runtime.bench.result import read_result, write_result

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_runtime.bench.figures import Latency, Limit, Live, Power, Roofline
    from velora_runtime.bench.result import BenchResult, Comparison

COLUMNS = (
    *("board", "JetPack, mode", "model", "engine", "fps, Mev/s"),
    *("p50 / p99 ms", "missed", "mJ", "highest fps", "verdict"),
)
EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
"""2 is a wrong command line, as everywhere."""

HEAD = """# Measured boards

Made by `python benchmarks/run.py --boards` of the files in `benchmarks/boards/`, each of which
`velora bench --submit` wrote on the board itself. Nothing here is typed in by hand. How it is measured:
[velora bench](guides/bench.md).
"""


def lines(result: BenchResult) -> Iterator[str]:
    """All of it, a section after the other."""
    machine = result.machine
    parts = [machine.board, f"{machine.cores} cores", machine.gpu]
    parts += [None if machine.jetpack is None else f"JetPack {machine.jetpack}", machine.power_mode]
    yield ", ".join(part for part in parts if part)
    if result.parts:
        yield from ("", *_parts(result))
    if result.live is not None:
        yield from ("", *_live(result.live))
    if result.power is not None:
        yield from ("", *_power(result.power))
    if result.roofline is not None:
        yield from ("", *_roofline(result.roofline))
    if result.limits:
        yield from ("", *(_limit(limit) for limit in result.limits))
    for name, rows in result.sweeps.items():
        yield from ("", *_sweep(name, rows))
    if result.comparison is not None:
        yield from ("", *_comparison(result.comparison))
    yield from ("", *_verdict(result))


def exit_code(result: BenchResult) -> int:
    """Of the comparison where there is one, else of the verdict; the worse where there are both."""
    codes = [EXIT_CODES[result.verdict.outcome]]
    codes += [] if result.comparison is None else [EXIT_CODES[result.comparison.outcome]]
    return 1 if 1 in codes else max(codes)


def _parts(result: BenchResult) -> Iterator[str]:
    yield f"{'parts, warm, in turn':<58} {'p50 ms':>9} {'p99 ms':>9} {'n':>6}"
    for part in result.parts:
        rate = f"{part.per_s / 1e6:.1f} M" if part.per_s >= 1e6 else f"{part.per_s:.0f}"
        yield f"{part.title:<58} {part.p50_ms:9.3f} {part.p99_ms:9.3f} {part.n:6}  {rate} {part.unit}/s"


def _live(live: Live) -> Iterator[str]:
    paced = f"{live.event_rate_hz / 1e6:g} Mev/s" if live.events else "no events"
    yield f"live: {paced}, {live.fps:g} fps, {live.engine}"
    for title, latency in (
        ("exposure to decision", live.exposure_ms),
        ("last event to decision", live.last_event_ms),
    ):
        if latency is not None:
            yield f"  {title:<23} {_latency(latency)}"
    for number, run in enumerate(live.runs, 1):
        dropped = ", ".join(f"{n:,} {name}" for name, n in run.dropped.items()) or "nothing"
        used = "" if run.cores is None else f", {run.cores:.2f} cores"
        used += "" if run.memory_mb is None else f", {run.memory_mb:.0f} MB"
        missed = f"{run.missed} of {run.due} missed {live.deadline_ms:g} ms"
        yield f"  run {number}: {run.fps:.1f} decisions/s, {missed}, dropped: {dropped}{used}"
    yield f"  {'stage':<30} {'side':<7} {'wall ms':>8} {'CPU ms':>8} {'busy':>6}"
    for stage in live.stages:
        wall = "" if stage.wall_ms is None else f"{stage.wall_ms:.3f}"
        busy = "" if stage.busy is None else f"{100 * stage.busy:.0f} %"
        cpu = "" if stage.cpu_ms is None else f"{stage.cpu_ms:.3f}"
        yield f"  {stage.name:<30} {stage.side:<7} {wall:>8} {cpu:>8} {busy:>6}"


def _latency(latency: Latency) -> str:
    shares = (("p50", latency.p50), ("p90", latency.p90), ("p95", latency.p95), ("p99", latency.p99))
    told = "  ".join(f"{name} {value:.2f}" for name, value in (*shares, ("p99.9", latency.p999)))
    return f"{told}  max {latency.max:.2f}  jitter {latency.jitter:.2f} ms ({latency.n})"


def _power(power: Power) -> Iterator[str]:
    if power.why_none is not None:
        yield f"power: {power.why_none}"
        return
    whole = f"{power.total_mj_per_decision} with what the machine takes at rest"
    yield f"power: {power.mj_per_decision} mJ a decision; {whole}"
    for rail in power.rails:
        yield f"  {rail.name:<24} {rail.baseline_w:8.2f} W at rest {rail.during_w:8.2f} W during the runs"


def _roofline(roofline: Roofline) -> Iterator[str]:
    rates = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in roofline.gflops.items())
    yield f"device: {rates or 'no arithmetic rate'}, copies {roofline.gigabytes_s:.1f} GB/s"
    for share in roofline.shares:
        of_arithmetic = (
            "" if share.arithmetic is None else f"{100 * share.arithmetic:.0f} % of the arithmetic, "
        )
        title = f"{share.part}, {share.model}, {share.backend}, {share.precision}"
        reached = f"{share.gflops:.1f} GFLOP/s, {share.gigabytes_s:.2f} GB/s"
        yield f"  {title:<56} {reached}: {of_arithmetic}{100 * share.memory:.0f} % of the memory rate"
    for reason in roofline.why_none:
        yield f"  {reason}"


def _limit(limit: Limit) -> str:
    unit = "frames/s" if limit.of == "fps" else "events/s"
    if limit.highest is None:
        return f"highest {unit}: none without a drop; {limit.stage} gives way ({limit.because})"
    if limit.stage is None:
        return f"highest {unit}: {limit.highest:g}, and no more was tried"
    gives_way = f"at {limit.lowest_failing:.4g} {limit.stage} gives way ({limit.because})"
    return f"highest {unit}: {limit.highest:.4g}; {gives_way}"


def _sweep(name: str, rows: list[dict[str, float]]) -> Iterator[str]:
    columns = ("p50_ms", "p99_ms", "cores", "missed", "dropped")
    yield f"{name:<16}" + "".join(f"{column:>10}" for column in columns)
    for row in rows:
        told = (f"{row[column]:10.4g}" if column in row else f"{'-':>10}" for column in columns)
        yield f"{row['at']:<16g}" + "".join(told)


def _comparison(comparison: Comparison) -> Iterator[str]:
    most = 100 * comparison.max_regression
    yield f"against the result of {comparison.with_date}, {most:g} % allowed: {comparison.outcome}"
    for change in comparison.changes:
        by = f"{100 * change.change:+.1f} % worse, noise {100 * change.noise:.1f} %"
        yield f"  {change.outcome:<13} {change.name}: {change.old:g} -> {change.new:g}, {by}"
    for reason in comparison.reasons:
        yield f"  {reason.text}; {reason.remedy}"


def _verdict(result: BenchResult) -> Iterator[str]:
    verdict = result.verdict
    for check in verdict.checks:
        values = ", ".join(f"{value:g}" for value in check.values)
        yield f"{check.outcome:<13} {check.name} {check.limit:g}: {values}"
    for reason in verdict.reasons:
        yield f"{'because':<13} {reason.text}; {reason.remedy}"
    about = "" if verdict.checks else " (no limit was asked about: this is about the machine alone)"
    yield f"verdict: {verdict.outcome}{about}"


def board_name(result: BenchResult) -> str:
    """The name of a result's file: board, power mode, model and precision."""
    machine, model = result.machine, result.models[0]
    parts = (machine.board, machine.power_mode, model.name, model.precision)
    return re.sub(r"[^a-z0-9]+", "-", " ".join(part for part in parts if part).lower()).strip("-")


def write_board(result: BenchResult, folder: Path) -> Path:
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
    return "\n".join([HEAD, *_board_table(results)]) + "\n"


def _board_table(results: list[BenchResult]) -> Iterator[str]:
    if not results:
        yield "No board has been measured yet."
        return
    yield f"| {' | '.join(COLUMNS)} |"
    yield "|---" * len(COLUMNS) + "|"
    for result in results:
        yield "| " + " | ".join(_board_row(result)) + " |"
    yield ""
    for result in results:
        yield f"- {result.machine.board}, {result.date}: `{result.reproduce}`"
        for reason in result.verdict.reasons:
            yield f"  - {reason.text}"


def _board_row(result: BenchResult) -> Iterator[str]:
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
