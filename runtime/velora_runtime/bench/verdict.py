"""Whether a result keeps the limits that were asked about, and whether it can be trusted at all.

A limit is kept, or broken, where every run says so. The verdict is INCONCLUSIVE, with the reason and what
mends it, where runs say different things, or where the machine was not still: clocks that may move,
throttling, cores that a host or other programs took.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_runtime.bench.result import Check, Outcome, Reason, Verdict

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from velora_runtime.bench.result import Conditions, During, Limit, Live, Machine, Power, Stretch

MOST_TAKEN, MOST_OTHERS = 0.02, 0.10
"""Shares of the cores that a host, and other programs, may have taken."""
MOST_MOVED = 0.05
"""Share by which a GPU's clock may have moved under load."""
MOST_LATE_MS = 100.0
"""By how much the generated cameras may have been late by themselves."""
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
    reasons = [*lacking, *_clock_reasons(machine, before, during, live), *_heat_reasons(before, during, after)]
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
