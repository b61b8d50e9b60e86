"""Decision layer: from scores to starts and ends of actions, by two thresholds, a margin and a gap.

The average is exponential in the recording's own time, so that it does not depend on the rate of predictions:
after dt, a new score counts 1 - exp(-dt / time constant). Two thresholds, so that a score that fluctuates
around one of them starts and ends nothing (a Schmitt trigger).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from pydantic import Field

from velora_edge.config import Section, build_config, read_yaml
from velora_edge.errors import ConfigError
from velora_edge.limits import load_yaml

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

DEFAULT = "default"
_WHERE = "--decide"


class DecisionSettings(Section):
    """When an action starts and ends. Scores are those of the smoothed probabilities, 0 to 1.

    Attributes:
        smooth_ms: time constant of the average over time, milliseconds; 0: each prediction as it is.
        enter: an action starts only at this score; below, what is seen is unknown.
        leave: it goes on down to this score; at most `enter`.
        margin: another label takes its place only with so much more than it has.
        hold_ms: a change has to hold for so long before it is made, milliseconds.
        gap_ms: an action ends where predictions are missing for longer, milliseconds.
        idle: labels that stand for nothing in particular; they never become actions.
    """

    smooth_ms: float = Field(300.0, ge=0, le=3_600_000)
    enter: float = Field(0.6, ge=0, le=1)
    leave: float = Field(0.4, ge=0, le=1)
    margin: float = Field(0.1, ge=0, le=1)
    hold_ms: float = Field(200.0, ge=0, le=3_600_000)
    gap_ms: float = Field(2_000.0, gt=0, le=3_600_000)
    idle: tuple[str, ...] = ()

    def problems(self) -> list[str]:
        """The two thresholds in their order."""
        if self.leave > self.enter:
            return [f"leave: expected at most enter ({self.enter:g}), got {self.leave:g}"]
        return []


def read_decision_settings(given: Sequence[str]) -> DecisionSettings | None:
    """The settings that a user gave, the later ones winning; None where none were.

    Args:
        given: `default`, paths of YAML files, and `key=value`, the value as YAML.

    Raises:
        ConfigError: with every problem.
    """
    if not given:
        return None
    tree: dict[str, Any] = {}
    path = _WHERE
    for text in given:
        key, equals, value = text.partition("=")
        if equals:
            tree[key.strip()] = _read_value(text, value)
        elif text != DEFAULT:
            tree.update(read_yaml(text))
            path = text
    settings = build_config(tree, DecisionSettings, path=path)
    if problems := settings.problems():
        raise ConfigError(problems, path=path)
    return settings


def _read_value(text: str, value: str) -> Any:
    try:
        return load_yaml(value)
    except ValueError as error:
        raise ConfigError([f"{text}: the value is not YAML; put quotes around it"], path=_WHERE) from error


UNKNOWN = "unknown"
"""How a time without an action is called."""

Why = Literal["other", "weak", "gap", "end"]


@dataclass(frozen=True, slots=True)
class Action:
    """An action that has just started, or ended.

    Attributes:
        number: of the action, from 0; its start and its end share it.
        label: what it is.
        score: its smoothed score; at its end the highest that it had.
        seq: number of the pair with which it was decided.
        t_us: that pair's time: when it was decided.
        from_us: since when it has been seen; the change had to hold from then on.
        to_us: until when; None at its start.
        why: what ended it: `other` (another label took its place), `weak` (nothing is clear, or an idle label
            is), `gap` (no predictions), `end` (of the run); None at its start.
    """

    number: int
    label: str
    score: float
    seq: int
    t_us: int
    from_us: int
    to_us: int | None = None
    why: Why | None = None


@dataclass(frozen=True, slots=True)
class Decided:
    """Action that is decided to be in progress.

    Attributes:
        label: of the action; `UNKNOWN` where there is none.
        score: its smoothed score; without an action, that of the best label.
        since_us: the action's start; None without one.
    """

    label: str
    score: float
    since_us: int | None


class Decider:
    """Decides, prediction by prediction. Pure: no clock but the predictions' own times.

    Single-threaded: the inference thread only.

    Args:
        labels: the model's.
        settings: when actions start and end.

    Raises:
        ConfigError: if an idle label is none of the model's.
    """

    def __init__(self, labels: Sequence[str], settings: DecisionSettings) -> None:
        strange = [name for name in settings.idle if name not in labels]
        if strange:
            raise ConfigError([f"idle: the model has no label {name!r}" for name in strange], path="--decide")
        self._labels, self._set = tuple(labels), settings
        self._idle = frozenset(self._labels.index(name) for name in settings.idle)
        self._smooth = np.zeros(len(labels), np.float64)
        self._raw = np.zeros(len(labels), np.float64)
        self._open: Action | None = None
        self._now: int | None = None
        self._wanted: int | None = None
        self._wanted_since_us = self._unwanted_since_us = self._last_us = self._last_seq = 0
        self._started = 0
        self._is_fresh = True

    @property
    def decided(self) -> Decided:
        """Action that is decided to be in progress."""
        if self._open is None or self._now is None:
            return Decided(UNKNOWN, float(self._smooth.max()), None)
        return Decided(self._open.label, float(self._smooth[self._now]), self._open.from_us)

    def see(self, seq: int, t_us: int, scores: NDArray[np.floating]) -> tuple[Action, ...]:
        """Take a prediction; return the actions it ends and starts, in order: at most one each.

        Args:
            seq: number of its pair.
            t_us: its time, not earlier than the one before.
            scores: probabilities by label, float[K]; not changed.
        """
        ended: tuple[Action, ...] = ()
        if not self._is_fresh and t_us - self._last_us > self._set.gap_ms * 1000:
            ended = self._end(seq, t_us, self._last_us, "gap")
            self._is_fresh = True
        self._average(t_us, scores)
        self._last_us, self._last_seq = t_us, seq
        self._keep_best()
        return ended + self._change(seq, t_us)

    def end(self) -> tuple[Action, ...]:
        """End the run, and the action in progress, if there is one."""
        return self._end(self._last_seq, self._last_us, self._last_us, "end")

    def _average(self, t_us: int, scores: NDArray[np.floating]) -> None:
        """Add the scores to the average, weighted by the time that has passed."""
        if self._is_fresh or not self._set.smooth_ms:
            self._smooth[:] = scores
        else:
            passed_ms = max(t_us - self._last_us, 0) / 1000
            share = -math.expm1(-passed_ms / self._set.smooth_ms)
            np.subtract(scores, self._smooth, out=self._raw)
            self._raw *= share
            self._smooth += self._raw
        if self._is_fresh:
            self._is_fresh = False
            self._wanted, self._wanted_since_us = self._now, t_us

    def _keep_best(self) -> None:
        if self._open is not None and self._now is not None:
            score = float(self._smooth[self._now])
            if score > self._open.score:
                self._open = replace(self._open, score=score)

    def _choose(self) -> int | None:
        """The label that the scores ask for now; None for none."""
        best, now = int(self._smooth.argmax()), self._now
        score = self._smooth[best]
        stays = now is not None and bool(self._smooth[now] >= self._set.leave)
        if score >= self._set.enter and best != now:
            is_clear = not stays or score >= self._smooth[now] + self._set.margin
            if is_clear:
                return None if best in self._idle else best
        return now if stays else None

    def _change(self, seq: int, t_us: int) -> tuple[Action, ...]:
        """Make the change that the scores have supported for long enough."""
        wanted, hold_us = self._choose(), self._set.hold_ms * 1000
        if wanted != self._wanted:
            if self._wanted == self._now:
                self._unwanted_since_us = t_us
            self._wanted, self._wanted_since_us = wanted, t_us
        if wanted == self._now:
            return ()
        if t_us - self._wanted_since_us >= hold_us:
            why: Why = "weak" if wanted is None else "other"
            ended = self._end(seq, t_us, self._unwanted_since_us, why)
            return ended if wanted is None else (*ended, self._start(wanted, seq, t_us))
        if self._now is not None and t_us - self._unwanted_since_us >= hold_us:
            return self._end(seq, t_us, self._unwanted_since_us, "weak")
        return ()

    def _start(self, label: int, seq: int, t_us: int) -> Action:
        self._now = label
        score = float(self._smooth[label])
        self._open = Action(self._started, self._labels[label], score, seq, t_us, self._wanted_since_us)
        self._started += 1
        return self._open

    def _end(self, seq: int, t_us: int, to_us: int, why: Why) -> tuple[Action, ...]:
        action, self._open, self._now = self._open, None, None
        if action is None:
            return ()
        return (replace(action, seq=seq, t_us=t_us, to_us=to_us, why=why),)
