"""A result as text, for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_runtime.bench.result import Comparison, Latency, Limit, Live, Power, Result, Roofline

EXIT_CODES = {"PASS": 0, "FAIL": 1, "INCONCLUSIVE": 3}
"""2 is a wrong command line, as everywhere."""


def lines(result: Result) -> Iterator[str]:
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
    if result.comparison is not None:
        yield from ("", *_comparison(result.comparison))
    yield from ("", *_verdict(result))


def exit_code(result: Result) -> int:
    """Of the comparison where there is one, else of the verdict; the worse where there are both."""
    codes = [EXIT_CODES[result.verdict.outcome]]
    codes += [] if result.comparison is None else [EXIT_CODES[result.comparison.outcome]]
    return 1 if 1 in codes else max(codes)


def _parts(result: Result) -> Iterator[str]:
    yield f"{'parts, warm, in turn':<58} {'p50 ms':>9} {'p99 ms':>9} {'n':>6}"
    for part in result.parts:
        rate = f"{part.per_s / 1e6:.1f} M" if part.per_s >= 1e6 else f"{part.per_s:.0f}"
        yield f"{part.title:<58} {part.p50_ms:9.3f} {part.p99_ms:9.3f} {part.n:6}  {rate} {part.unit}/s"


def _live(live: Live) -> Iterator[str]:
    paced = f"{live.event_rate_hz / 1e6:g} Mev/s" if live.events else "no events"
    yield f"live: {paced}, {live.fps:g} fps, {live.engine}"
    for title, latency in (("exposure to decision", live.exposure_ms), ("last event to decision", live.last_event_ms)):
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
    yield f"power: {power.mj_per_decision} mJ a decision; {power.total_mj_per_decision} with the machine at rest"
    for rail in power.rails:
        yield f"  {rail.name:<24} {rail.baseline_w:8.2f} W at rest {rail.during_w:8.2f} W during the runs"


def _roofline(roofline: Roofline) -> Iterator[str]:
    rates = ", ".join(f"{name} {value:.0f} GFLOP/s" for name, value in roofline.gflops.items())
    yield f"device: {rates or 'no arithmetic rate'}, copies {roofline.gigabytes_s:.1f} GB/s"
    for share in roofline.shares:
        of_arithmetic = "" if share.arithmetic is None else f"{100 * share.arithmetic:.0f} % of the arithmetic, "
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
    return f"highest {unit}: {limit.highest:.4g}; at {limit.lowest_failing:.4g} {limit.stage} gives way ({limit.because})"


def _comparison(comparison: Comparison) -> Iterator[str]:
    most = 100 * comparison.max_regression
    yield f"against the result of {comparison.with_date}, {most:g} % allowed: {comparison.outcome}"
    for change in comparison.changes:
        told = f"{change.old:g} -> {change.new:g}, {100 * change.change:+.1f} % worse, noise {100 * change.noise:.1f} %"
        yield f"  {change.outcome:<13} {change.name}: {told}"
    for reason in comparison.reasons:
        yield f"  {reason.text}; {reason.remedy}"


def _verdict(result: Result) -> Iterator[str]:
    verdict = result.verdict
    for check in verdict.checks:
        values = ", ".join(f"{value:g}" for value in check.values)
        yield f"{check.outcome:<13} {check.name} {check.limit:g}: {values}"
    for reason in verdict.reasons:
        yield f"{'because':<13} {reason.text}; {reason.remedy}"
    about = "" if verdict.checks else " (no limit was asked about: this is about the machine alone)"
    yield f"verdict: {verdict.outcome}{about}"
