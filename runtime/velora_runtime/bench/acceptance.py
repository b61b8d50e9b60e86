"""Whether a result keeps the limits that were asked about, and whether it can be trusted at all.

A limit is kept, or broken, where every run says so. The verdict is INCONCLUSIVE, with the reason and what
mends it, where runs say different things, or where the machine was not still: clocks that may move,
throttling, cores that a host or other programs took.

Beside an older result, a figure fails where its best round is worse than the older result's worst by more
than was allowed, and passes where its worst is not worse than the older one's best by more. Between the
two it is INCONCLUSIVE. On a machine that was not still nothing passes. What other programs slow they slow
as a whole, so that there only a figure that changed by three times what the median figure did counts as a
failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_runtime.bench.result import Change, Check, Comparison, Outcome, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from velora_runtime.bench.figures import Limit, Live, Power
    from velora_runtime.bench.result import BenchResult, Conditions, During, Machine, Stretch

MOST_TAKEN, MOST_OTHERS = 0.02, 0.10
"""Shares of the cores that a host, and other programs, may have taken."""
MOST_MOVED = 0.05
"""Share by which a GPU's clock may have moved under load."""
MOST_LATE_MS = 100.0
"""By how much the generated cameras may have been late by themselves."""
STANDS_OUT = 3.0
"""Times the median figure's change that a figure must have changed by on a machine that was not still."""
STATES = ("cooling", "nvml")
"""What begins so is a state, not a counter: anything but 0 slows the device now."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a user asked about; None: not asked.

    Attributes:
        max_p99_ms: exposure (the window's end, without pictures) to decision, 99th percentile.
        max_miss_ratio: of pictures (windows) that were due.
        max_mj: energy a decision, baseline subtracted, millijoules.
        min_fps: decisions a second.
    """

    max_p99_ms: float | None = None
    max_miss_ratio: float | None = None
    max_mj: float | None = None
    min_fps: float | None = None


def judge(
    limits: Limits,
    live: Live | None,
    power: Power | None,
    machine: Machine,
    before: Conditions,
    during: During | None,
    after: Conditions,
    stretches: Mapping[str, Stretch] | None = None,
    found: Sequence[Limit] = (),
) -> Verdict:
    """The verdict on a result.

    Args:
        limits: that were asked about.
        live: the live runs; None where there were none.
        power: their energy; None where it was not asked for.
        machine: on which they ran.
        before: the machine before them.
        during: while they ran.
        after: the machine after them.
        stretches: how still it was while other things were measured, by what.
        found: the highest rates.
    """
    checks, lacking = _checks(limits, live, power)
    reasons = [
        *lacking,
        *_clock_reasons(machine, before, during, live),
        *_heat_reasons(before, during, after),
    ]
    reasons += _load_reasons(live, before, after)
    for name, stretch in (stretches or {}).items():
        reasons += _busy(name, stretch.taken_cores, stretch.others_cores, before.cores)
    for limit in found:
        reasons += _busy(f"search for {limit.of}", limit.taken_cores, limit.others_cores, before.cores)
    outcomes = {check.outcome for check in checks}
    outcome: Outcome = "PASS"
    if reasons:
        outcome = "INCONCLUSIVE"
    elif "FAIL" in outcomes:
        outcome = "FAIL"
    elif "INCONCLUSIVE" in outcomes:
        outcome = "INCONCLUSIVE"
        disagree = ", ".join(check.name for check in checks if check.outcome == "INCONCLUSIVE")
        reasons = [Reason(text=f"the runs disagree about {disagree}", remedy="--runs 7, or longer --seconds")]
    return Verdict(outcome=outcome, checks=checks, reasons=reasons)


def _checks(limits: Limits, live: Live | None, power: Power | None) -> tuple[list[Check], list[Reason]]:
    """The limits that can be judged, and why others cannot."""
    checks, lacking = [], []
    runs = [] if live is None else live.runs
    latencies = [run.exposure_ms or run.last_event_ms for run in runs]
    energy = [] if power is None or power.mj_per_decision is None else [power.mj_per_decision]
    for name, limit, values, is_most in (
        ("--max-p99-ms", limits.max_p99_ms, [found.p99 for found in latencies if found is not None], True),
        ("--max-miss-ratio", limits.max_miss_ratio, [run.missed / run.due for run in runs if run.due], True),
        ("--max-mj", limits.max_mj, energy, True),
        ("--min-fps", limits.min_fps, [run.fps for run in runs], False),
    ):
        if limit is None:
            continue
        if not values:
            lacking.append(_lacking(name, power))
            continue
        checks.append(_check(name, limit, values, is_most=is_most))
    return checks, lacking


def _lacking(name: str, power: Power | None) -> Reason:
    if name != "--max-mj":
        return Reason(
            text=f"nothing was measured that {name} could be held against", remedy="longer --seconds"
        )
    why = "power was not measured" if power is None else power.why_none or "power was not measured"
    return Reason(text=f"{name}: {why}", remedy="leave --max-mj out where no sensor can be read")


def _check(name: str, limit: float, values: Sequence[float], *, is_most: bool) -> Check:
    kept = [value <= limit if is_most else value >= limit for value in values]
    outcome: Outcome = "PASS" if all(kept) else "INCONCLUSIVE" if any(kept) else "FAIL"
    return Check(name=name, limit=limit, values=[round(value, 4) for value in values], outcome=outcome)


def _clock_reasons(
    machine: Machine, before: Conditions, during: During | None, live: Live | None
) -> Iterator[Reason]:
    if before.clocks_locked is False:
        if machine.jetpack is not None or machine.l4t is not None:
            yield Reason(text="the clocks are not locked", remedy="sudo nvpmodel -m 0 && sudo jetson_clocks")
        else:
            command = "sudo cpupower frequency-set -g performance"
            yield Reason(text="the processor's clocks may move (cpufreq)", remedy=command)
    on_gpu = live is not None and machine.gpu is not None and "CPU" not in live.engine
    for name, (lowest, highest) in (during.clocks_mhz if during is not None and on_gpu else {}).items():
        if name.startswith("nvml") and lowest < (1 - MOST_MOVED) * highest:
            text = f"the GPU's clock {name} moved between {lowest} and {highest} MHz"
            yield Reason(text=text, remedy=f"sudo nvidia-smi --lock-gpu-clocks={highest},{highest}")


def _heat_reasons(before: Conditions, during: During | None, after: Conditions) -> Iterator[Reason]:
    seen = {**after.throttled}
    for name, count in ({} if during is None else during.throttled).items():
        seen[name] = max(count, seen.get(name, 0))
    for name, count in seen.items():
        was = before.throttled.get(name, 0)
        if count > was or (count and name.startswith(STATES)):
            yield Reason(
                text=f"the device throttled: {name}, {was} before, {count} during the runs",
                remedy="cool it, or choose a lower power mode (sudo nvpmodel -m N), and measure again",
            )


def _load_reasons(live: Live | None, before: Conditions, after: Conditions) -> Iterator[Reason]:
    if before.cores != after.cores:
        text = f"there were {before.cores} cores before and {after.cores} after"
        yield Reason(text=text, remedy="leave the process its cores (taskset, cgroups, nvpmodel)")
    for number, run in enumerate([] if live is None else live.runs, 1):
        yield from _busy(f"run {number}", run.taken_cores, run.others_cores, before.cores)
        if run.cameras_late_ms > MOST_LATE_MS:
            text = f"run {number}: the generated cameras were {run.cameras_late_ms:.0f} ms late"
            yield Reason(text=text, remedy="lower --event-rate or --fps: this machine cannot generate them")


def _busy(what: str, taken: float | None, others: float | None, cores: int) -> Iterator[Reason]:
    """Cores that something was measured without."""
    if (taken or 0.0) > MOST_TAKEN * cores:
        text = f"{what}: the virtual machine's host took {taken:.2f} cores away"
        yield Reason(text=text, remedy="measure at a quieter hour, or on a machine of its own")
    if (others or 0.0) > MOST_OTHERS * cores:
        text = f"{what}: other programs used {others:.2f} cores"
        yield Reason(text=text, remedy="end them (see top), and measure again")


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure by rounds, or by runs.

    Attributes:
        rounds: its values; positive.
        is_cost: less is better.
    """

    rounds: Sequence[float]
    is_cost: bool = True


def figures(result: BenchResult) -> dict[str, Figure]:
    """What two results are compared by."""
    found = {part.title: Figure(part.rounds_ms) for part in result.parts}
    live = result.live
    if live is not None:
        what = f"live, {live.event_rate_hz:g} events/s, {live.fps:g} fps, {live.engine}"
        for share in ("p50", "p99"):
            values = [run.exposure_ms or run.last_event_ms for run in live.runs]
            found[f"{what}: {share}"] = Figure([getattr(one, share) for one in values if one is not None])
        found[f"{what}: decisions/s"] = Figure([run.fps for run in live.runs], is_cost=False)
    for limit in result.limits:
        if limit.highest is not None:
            rates = [limit.highest, *([] if limit.lowest_failing is None else [limit.lowest_failing])]
            found[f"highest {limit.of}"] = Figure(rates, is_cost=False)
    if result.power is not None and result.power.mj_per_decision is not None:
        found["mJ a decision"] = Figure([result.power.mj_per_decision])
    return {name: figure for name, figure in found.items() if figure.rounds and min(figure.rounds) > 0}


def compare(new: BenchResult, old: BenchResult, max_regression: float) -> Comparison:
    """Compare a result with an older one.

    Args:
        new: this one.
        old: the older one.
        max_regression: share by which a figure may be worse, such as 0.05.
    """
    ours, theirs = figures(new), figures(old)
    changes = [
        _change(name, ours[name], figure, max_regression) for name, figure in theirs.items() if name in ours
    ]
    changes.sort(key=lambda change: -change.change)
    missing = [name for name in theirs if name not in ours]
    reasons = list(_reasons(new, old, ours, missing))
    if reasons and changes:
        usual = 1 + float(np.median([change.change for change in changes]))
        standing_out = [change for change in changes if 1 + change.change > STANDS_OUT * usual]
        outcomes = {change.outcome for change in standing_out}
    else:
        outcomes = {change.outcome for change in changes}
    outcome: Outcome = "PASS"
    if "FAIL" in outcomes:
        outcome = "FAIL"
    elif "INCONCLUSIVE" in outcomes or reasons or not changes:
        outcome = "INCONCLUSIVE"
    return Comparison(
        with_date=old.date,
        max_regression=max_regression,
        changes=changes,
        missing=missing,
        reasons=reasons,
        outcome=outcome,
    )


def _change(name: str, new: Figure, old: Figure, most: float) -> Change:
    """How much worse a figure is; rates are turned over, so that more is worse."""
    ours, theirs = (_costs(figure) for figure in (new, old))
    least, largest = min(ours) / max(theirs) - 1, max(ours) / min(theirs) - 1
    outcome: Outcome = "FAIL" if least > most else "PASS" if largest <= most else "INCONCLUSIVE"
    noise = max((max(rounds) - min(rounds)) / float(np.median(rounds)) for rounds in (ours, theirs))
    return Change(
        name=name,
        old=round(float(np.median(old.rounds)), 4),
        new=round(float(np.median(new.rounds)), 4),
        change=round(float(np.median(ours) / np.median(theirs)) - 1, 4),
        noise=round(noise, 4),
        outcome=outcome,
    )


def _costs(figure: Figure) -> list[float]:
    return [value if figure.is_cost else 1 / value for value in figure.rounds]


def _reasons(
    new: BenchResult, old: BenchResult, ours: Mapping[str, Figure], missing: Sequence[str]
) -> Iterator[Reason]:
    again = "measure both on one machine: git stash, velora bench --json OLD.json, and again"
    for name in ("board", "power_mode", "jetpack", "cpu", "gpu", "cores"):
        before, now = getattr(old.machine, name), getattr(new.machine, name)
        if before != now:
            yield Reason(text=f"another machine: {name} was {before}, is {now}", remedy=again)
    for which, result in (("the older result", old), ("this result", new)):
        for reason in result.verdict.reasons:
            yield Reason(text=f"{which}: {reason.text}", remedy=reason.remedy)
    if not ours or missing:
        text = f"not measured this time: {', '.join(missing)}" if missing else "nothing was measured"
        yield Reason(text=text, remedy=f"repeat what the older one did: {old.reproduce}")
