"""The highest frame rate and event rate without a drop, by search, and the stage that gives way first.

A rate fits where, after the warm-up, nothing was dropped, every picture had its decision, latency did not
grow from the first quarter of the run to the last by two pictures' time, and the cameras were not held
up. One that does not fit is tried again before it is believed: a machine's hiccup is no limit.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from velora_runtime.bench.figures import Limit, Probe
from velora_runtime.bench.live import (
    THREADS,
    cameras_held_ms,
    cameras_late_ms,
    lost,
    measure_live,
    thread_cpu_s,
)
from velora_runtime.bench.meters import Load

if TYPE_CHECKING:
    from collections.abc import Callable

    from velora_runtime.bench.live import LiveSettings, Measured

Of = Literal["fps", "events"]
STEP, CLOSE = 2.0, 1.06
"""From one rate to the next on the way up, and how near to each other the last two are."""
MOST = {"fps": 2000.0, "events": 400e6}
MOST_HELD_MS = 100.0
FEWEST_DECIDED = 0.98
"""Share of the pictures that must have had a decision; the last ones of a run are still under way."""
BUSY_CORES = 0.95

GIVES_WAY = (
    ("pairs: before inference", "inference"),
    ("pictures: before packing", "pack"),
    ("events: overrun", "pack"),
    ("pictures: camera overrun", "pictures: resize"),
    ("decisions: sink", "sinks"),
)
"""Whose thread was too slow, by what was dropped: the one that takes from the queue that was full."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """What a run at a rate says.

    Attributes:
        why: what was lost first; None where it fits.
        stage: that gives way; None where it fits.
        because: what says so.
        load: of the machine meanwhile.
    """

    why: str | None = None
    stage: str | None = None
    because: str | None = None
    load: Load = field(default_factory=Load)


def find_highest(of: Of, model: str, settings: LiveSettings, note: Callable[[str], None]) -> Limit:
    """Search for the highest rate of one camera while the other keeps its own.

    Args:
        of: fps or events.
        model: as velora-live takes it.
        settings: of every run; its rate is where the search begins.
        note: gets a line for each step.
    """

    def attempt(rate: float) -> Attempt:
        tried = replace(settings, fps=rate) if of == "fps" else replace(settings, event_rate_hz=rate)
        return judge_run(measure_live(model, tried)[0], tried)

    begin = settings.fps if of == "fps" else settings.event_rate_hz
    other = settings.event_rate_hz if of == "fps" else settings.fps
    return search(of, begin, other, attempt, note)


def search(
    of: Of, begin: float, other: float, attempt: Callable[[float], Attempt], note: Callable[[str], None]
) -> Limit:
    """Twice as much until it does not fit (or half until it does), then the middle of what is left.

    Args:
        of: what the rate is of.
        begin: the first rate.
        other: rate of the other camera.
        attempt: tries a rate.
        note: gets a line for each step.
    """
    probes: list[Probe] = []
    loads: list[Load] = []
    failing: Attempt | None = None

    def fits(rate: float) -> bool:
        nonlocal failing
        said = attempt(rate)
        if said.why is not None:
            said = attempt(rate)
        loads.append(said.load)
        probes.append(Probe(rate=rate, fits=said.why is None, why=said.why))
        note(f"  {of} {rate:.5g}: {'fits' if said.why is None else said.why}")
        failing = failing if said.why is None else said
        return said.why is None

    low, high = _bracket(of, begin, fits)
    while low is not None and high is not None and high / low > CLOSE:
        middle = (low * high) ** 0.5
        low, high = (middle, high) if fits(middle) else (low, middle)
    return Limit(
        of=of,
        highest=low,
        lowest_failing=high,
        stage=None if failing is None else failing.stage,
        because=None if failing is None else failing.because,
        other_rate=other,
        others_cores=max((load.others for load in loads if load.others is not None), default=None),
        taken_cores=max((load.taken for load in loads if load.taken is not None), default=None),
        probes=probes,
    )


def _bracket(of: Of, begin: float, fits: Callable[[float], bool]) -> tuple[float | None, float | None]:
    """A rate that fits and one that does not; None for the one that was not found."""
    if fits(begin):
        low = begin
        while low * STEP <= MOST[of]:
            if not fits(low * STEP):
                return low, low * STEP
            low *= STEP
        return low, None
    high = begin
    for _ in range(5):
        if fits(high / STEP):
            return high / STEP, high
        high /= STEP
    return None, high


def judge_run(run: Measured, settings: LiveSettings) -> Attempt:
    """Whether a run fits, and if not, what gave way."""
    why = _why_not(run, settings)
    if why is None:
        return Attempt(load=run.load)
    if cameras_late_ms(run) > MOST_HELD_MS:
        late = f"they sent {cameras_late_ms(run):.0f} ms late, and nothing held them up"
        return Attempt(why, "the generated cameras", late, run.load)
    stage = _stage(run)
    busy = busy_shares(run)
    told = [f"{name} {100 * share:.0f} %" for name, share in itertools.islice(busy.items(), 3)]
    used = sum(run.load.cores.values()) + (run.load.others or 0.0)
    cores = f"; {used:.2f} cores in use" if run.load.cores else ""
    return Attempt(why, stage, f"{why}; busiest threads: {', '.join(told)}{cores}", run.load)


def _why_not(run: Measured, settings: LiveSettings) -> str | None:
    dropped = {kind: n for kind, n in run.dropped.items() if n > 0}
    if dropped:
        return ", ".join(f"{n:,} {kind} dropped" for kind, n in dropped.items())
    if cameras_held_ms(run) > MOST_HELD_MS:
        return f"the cameras were held up by {cameras_held_ms(run):.0f} ms"
    if cameras_late_ms(run) > MOST_HELD_MS:
        return f"the cameras were {cameras_late_ms(run):.0f} ms late"
    due = run.seconds * settings.fps
    if len(run.latencies_ms) < FEWEST_DECIDED * due:
        return f"{len(run.latencies_ms)} decisions of {due:.0f}"
    quarters = np.array_split(np.asarray(run.latencies_ms), 4)
    first_ms, last_ms = float(np.median(quarters[0])), float(np.median(quarters[-1]))
    if last_ms - first_ms > 2e3 / settings.fps:
        return f"latency grew from {first_ms:.0f} to {last_ms:.0f} ms"
    return None


def busy_shares(run: Measured) -> dict[str, float]:
    """Share of the time in which each stage worked, the busiest first.

    The inference thread waits for the engine's own threads while it works, so that its share is the wall time
    of its calls; the other threads' is CPU time.
    """
    shares: dict[str, float] = {}
    for name, cpu_s in thread_cpu_s(run).items():
        for prefix, title in THREADS.items():
            if name.startswith(prefix):
                shares[title] = shares.get(title, 0.0) + cpu_s / run.seconds
    rows = [row[4] for row in run.said["decisions"] if run.first_ns <= row[0] <= run.last_ns]
    shares["inference"] = sum(row["encode"] + row["head"] for row in rows) / 1e3 / run.seconds
    return dict(sorted(shares.items(), key=lambda entry: -entry[1]))


def _stage(run: Measured) -> str:
    """The stage whose queue was full; where none was, the busiest one."""
    counts = lost(run)
    found = [stage for kind, stage in GIVES_WAY for name in counts if name.startswith(kind)]
    if not found and cameras_held_ms(run) > MOST_HELD_MS:
        found = [_held_up(run)]
    stage = found[0] if found else next(iter(busy_shares(run)))
    return _largest_call(run) if stage == "inference" else stage


def _held_up(run: Measured) -> str:
    """The receiver that kept the cameras waiting: the busier one."""
    shares = {name: share for name, share in busy_shares(run).items() if "receive" in name}
    return max(shares, key=lambda name: shares[name]) if shares else "events: receive and scan"


def _largest_call(run: Measured) -> str:
    """The part of inference that takes most."""
    wall = {name: counts[1] for name, counts in run.said["calls"].items()}
    name = max(wall, key=lambda key: wall[key])
    share = wall[name] / max(sum(wall.values()), 1)
    part = "head" if name == "head" else f"{name} tower"
    return f"inference (most of it the {part}, {100 * share:.0f} %)"
