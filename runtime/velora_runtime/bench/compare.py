"""A result beside an older one: what is worse, by more than was allowed and than the runs differ by.

A figure fails where its best round is worse than the older result's worst by more than was allowed, and passes
where its worst is not worse than the older one's best by more. Between the two it is INCONCLUSIVE.

On a machine that was not still nothing passes. What is slowed there by other programs is slowed as a whole, so
that only a figure that is worse by three times what the median figure is still counts as a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from velora_runtime.bench.result import Change, Comparison, Outcome, Reason

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from velora_runtime.bench.result import Result


STANDS_OUT = 3.0
"""Times the median figure's change that a figure must have changed by on a machine that was not still."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure by rounds, or by runs.

    Attributes:
        rounds: its values; positive.
        is_cost: less is better.
    """

    rounds: Sequence[float]
    is_cost: bool = True


def figures(result: Result) -> dict[str, Figure]:
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


def compare(new: Result, old: Result, max_regression: float) -> Comparison:
    """Compare a result with an older one.

    Args:
        new: this one.
        old: the older one.
        max_regression: share by which a figure may be worse, such as 0.05.
    """
    ours, theirs = figures(new), figures(old)
    changes = [_change(name, ours[name], figure, max_regression) for name, figure in theirs.items() if name in ours]
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
    new: Result, old: Result, ours: Mapping[str, Figure], missing: Sequence[str]
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
