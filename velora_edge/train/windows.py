"""Evaluation as a live stream would have it: every window of a recording, and actions decided from them."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from velora_edge.data.clips.clips import ClipSource, Item, Pairs
from velora_edge.errors import InputError
from velora_edge.train.batches import collate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from velora_edge.data.clips.clips import ClipSpec
    from velora_edge.data.layouts.recordings import PackedPair, RecordingSet, WholeRecording
    from velora_edge.train.predictors import Predictor


class WindowSource(ClipSource):
    """All windows of some recordings, one for each pair that can end a clip, each a clip of its own.

    Windows that share most of their pairs are neighbours: those a stride apart.

    Args:
        source: the recordings, with clips by a stride.
        members: their numbers in the set.

    Raises:
        InputError: if the model's clips are spread over recordings.
    """

    def __init__(self, source: ClipSource, members: Sequence[int] | NDArray[np.int64]) -> None:
        spec = require_stride(source.spec)
        self.source, self.kind, self.path, self.spec = source, source.kind, source.path, spec
        self.labels, self.cameras = source.labels, source.cameras
        self.is_sequential, self.event_frames = source.is_sequential, source.event_frames
        reach = (spec.length - 1) * spec.stride
        self._places = [
            (int(index), start)
            for index in members
            for phase in range(spec.stride)
            for start in range(phase, max(1, source.pairs(int(index)) - reach), spec.stride)
        ]
        parents = [source.items[index] for index, _ in self._places]
        self.items = [
            Item(f"{parent.name}#{start}", parent.label, parent.split)
            for parent, (_, start) in zip(parents, self._places, strict=True)
        ]

    @property
    def rate_hz(self) -> float | None:
        """See `ClipSource.rate_hz`."""
        return self.source.rate_hz

    def pairs(self, index: int) -> int:
        """See `ClipSource.pairs`: those of a clip."""
        return self.spec.length

    def read(self, index: int, which: NDArray[np.int64]) -> Pairs:
        """See `ClipSource.read`; a recording that is too short repeats its last pair."""
        return self.source.read(*self._find(index, which))

    def clip(self, index: int, rng: np.random.Generator | None = None) -> Pairs:
        """The window; its pairs have the same numbers in all windows."""
        parent, which = self._find(index, np.arange(self.spec.length, dtype=np.int64))
        found = self.source.read(parent, which)
        return Pairs(found.rgb, found.event, (parent << 32) + which)

    def problems(self, index: int, *, deep: bool) -> list[str]:
        """See `ClipSource.problems`."""
        return self.source.problems(self._places[index][0], deep=deep)

    def _find(self, index: int, which: NDArray[np.int64]) -> tuple[int, NDArray[np.int64]]:
        """A window's recording, and the numbers of some of its pairs there."""
        parent, start = self._places[index]
        return parent, np.minimum(start + which * self.spec.stride, self.source.pairs(parent) - 1)


def require_stride(spec: ClipSpec) -> ClipSpec:
    """The form of clips, if they lie in a recording as a live stream has them.

    Raises:
        InputError: if they do not.
    """
    if spec.sampling != "stride":
        raise InputError(
            "clips of this model are spread over whole recordings, which have one window each",
            remedy="add --stride auto, or --stride N: clips as a live run has them",
        )
    return spec


LEAST_OVERLAP = 0.1
"""Intersection over union of their times, from which on a told action belongs to a true one."""
OVERLAPS = (0.1, 0.25, 0.5)
"""Of segment F1, as Lea et al. (CVPR 2017) count it."""


class Told(Protocol):
    """Start or end of an action, as `velora_runtime.inference.decision.Action` has it."""

    @property
    def number(self) -> int:
        """Of the action; its start and its end share it."""

    @property
    def label(self) -> str:
        """What it is."""

    @property
    def t_us(self) -> int:
        """When it was decided."""

    @property
    def from_us(self) -> int:
        """Since when it was seen."""

    @property
    def to_us(self) -> int | None:
        """Until when; None at its start."""


class Decides(Protocol):
    """Makes actions of scores, as `velora_runtime.inference.decision.Decider` does."""

    def see(self, seq: int, t_us: int, scores: NDArray[np.floating]) -> tuple[Told, ...]:
        """Take a prediction; return the actions that it ends and starts."""

    def end(self) -> tuple[Told, ...]:
        """End the run."""


@dataclass(frozen=True, slots=True)
class Span:
    """An action in a recording, times in microseconds from its first pair.

    Attributes:
        label: its class.
        start_us: since when.
        end_us: until when.
        decided_us: when its start was decided; of a true action its start.
    """

    label: str
    start_us: int
    end_us: int
    decided_us: int

    def overlap(self, other: Span) -> float:
        """Intersection over union of both times, 0 to 1."""
        shared = min(self.end_us, other.end_us) - max(self.start_us, other.start_us)
        either = max(self.end_us, other.end_us) - min(self.start_us, other.start_us)
        return max(0.0, shared / either) if either > 0 else 0.0


@dataclass(frozen=True, slots=True)
class Match:
    """A true action and the one that was told for it."""

    true: Span
    told: Span

    @property
    def overlap(self) -> float:
        """Intersection over union of their times."""
        return self.true.overlap(self.told)


@dataclass(frozen=True)
class ActionScores:
    """Actions that were decided, compared with the labels.

    Attributes:
        recordings: how many were run through.
        true: actions that are labelled.
        told: actions that were decided.
        matches: a true action and one that was told, of one label, each in one match at most.
    """

    recordings: int
    true: int
    told: int
    matches: tuple[Match, ...]

    @property
    def missed(self) -> int:
        """True actions that nothing was told for."""
        return self.true - self._found(LEAST_OVERLAP)

    @property
    def false(self) -> int:
        """Actions that were told and belong to no true one."""
        return self.told - self._found(LEAST_OVERLAP)

    def f1(self, overlap: float) -> float | None:
        """Segment F1: matches that overlap by so much; None without any action."""
        both = self.true + self.told
        return 2 * self._found(overlap) / both if both else None

    def errors_ms(self) -> dict[str, list[float]]:
        """Told minus true, milliseconds: of starts, of ends, and of the times when starts were decided."""
        found = [match for match in self.matches if match.overlap >= LEAST_OVERLAP]
        return {
            "start_ms": [(m.told.start_us - m.true.start_us) / 1000 for m in found],
            "end_ms": [(m.told.end_us - m.true.end_us) / 1000 for m in found],
            "decided_ms": [(m.told.decided_us - m.true.start_us) / 1000 for m in found],
        }

    def as_dict(self) -> dict[str, Any]:
        """Plain values: counts, F1 by overlap, and the errors' medians, signed and absolute."""
        return {
            "recordings": self.recordings,
            "true": self.true,
            "told": self.told,
            "missed": self.missed,
            "false": self.false,
            "f1": {f"{overlap:g}": self.f1(overlap) for overlap in OVERLAPS},
            **{
                name: {"median": median(errors), "median_abs": median(map(abs, errors))} if errors else None
                for name, errors in self.errors_ms().items()
            },
        }

    def _found(self, overlap: float) -> int:
        return sum(match.overlap >= overlap for match in self.matches)


def evaluate_actions(
    predictor: Predictor,
    source: RecordingSet,
    members: Sequence[int],
    make_decider: Callable[[], Decides],
    *,
    idle: Sequence[str] = (),
    batch_size: int = 16,
    tick: Callable[[], None] = lambda: None,
) -> ActionScores:
    """Decide on actions in whole recordings, and compare them with what is labelled there.

    Actions that were told during another part's segments are left out.

    Args:
        predictor: the model.
        source: the recordings.
        members: the items whose labels are compared.
        make_decider: a new one for each recording.
        idle: labels that are no actions.
        batch_size: clips at a time.
        tick: called after each recording.
    """
    require_stride(predictor.spec)
    true = told = recordings = 0
    matches: list[Match] = []
    for recording in source.whole(members):
        found, length_us = decide_recording(predictor, recording, source.cameras, make_decider(), batch_size)
        labelled, others = _labelled(source, recording, set(members), idle, length_us)
        found = [span for span in found if _most(span, others) <= _most(span, labelled)]
        matches += match_actions(labelled, found)
        true, told, recordings = true + len(labelled), told + len(found), recordings + 1
        tick()
    return ActionScores(recordings, true, told, tuple(matches))


def decide_recording(
    predictor: Predictor,
    recording: WholeRecording,
    cameras: Sequence[str],
    decider: Decides,
    batch_size: int = 16,
) -> tuple[list[Span], int]:
    """The actions that are decided in a recording, and its length in microseconds."""
    starts: dict[int, Told] = {}
    spans: list[Span] = []
    clock = _Clock()

    def take(actions: Iterable[Told]) -> None:
        for action in actions:
            if action.to_us is None:
                starts[action.number] = action
            else:
                begun = starts.pop(action.number)
                spans.append(Span(action.label, action.from_us, action.to_us, begun.t_us))

    told = scores_over_time(predictor, clock.watch(recording.pairs), cameras, batch_size)
    for number, (t_us, scores) in enumerate(told):
        take(decider.see(number, t_us, scores))
    take(decider.end())
    return spans, clock.length_us


class _Clock:
    """Counts the times of pairs from the first one on."""

    def __init__(self) -> None:
        self.length_us = 0

    def watch(self, pairs: Iterable[PackedPair]) -> Iterator[tuple[int, PackedPair]]:
        zero_us: int | None = None
        for pair in pairs:
            zero_us = pair.t_us if zero_us is None else zero_us
            self.length_us = pair.t_us - zero_us
            yield self.length_us, pair


def scores_over_time(
    predictor: Predictor, pairs: Iterable[tuple[int, PackedPair]], cameras: Sequence[str], batch_size: int
) -> Iterator[tuple[int, NDArray[np.float32]]]:
    """Probabilities by label after each pair from the first full clip on, with the pair's time.

    Args:
        predictor: the model, with clips by a stride.
        pairs: with their times; those that lack a camera are passed over.
        cameras: of the set.
        batch_size: clips at a time.
    """
    spec = predictor.spec
    recent: deque[Pairs] = deque(maxlen=(spec.length - 1) * spec.stride + 1)
    clips: list[tuple[Pairs, int, int]] = []
    times: list[int] = []
    for number, (t_us, pair) in enumerate(pairs):
        if pair.event is None or (pair.rgb is None and "rgb" in cameras):
            continue
        rgb = None if pair.rgb is None else pair.rgb.copy()
        recent.append(Pairs(rgb, pair.event.copy(), np.array(number, np.int64)))
        if len(recent) == recent.maxlen:
            clips.append((_stack(list(recent)[:: spec.stride]), 0, 0))
            times.append(t_us)
        if len(clips) == batch_size:
            yield from zip(times, _probabilities(predictor.logits(collate(clips))), strict=True)
            clips, times = [], []
    if clips:
        yield from zip(times, _probabilities(predictor.logits(collate(clips))), strict=True)


def match_actions(true: Sequence[Span], told: Sequence[Span]) -> list[Match]:
    """Pairs of actions of one label that overlap, those that overlap most first; each is in one at most."""
    overlaps = [
        (one.overlap(other), -i, -j)
        for i, one in enumerate(true)
        for j, other in enumerate(told)
        if one.label == other.label and one.overlap(other) > 0
    ]
    taken: tuple[set[int], set[int]] = set(), set()
    matches = []
    for _, i, j in sorted(overlaps, reverse=True):
        if i not in taken[0] and j not in taken[1]:
            taken[0].add(i)
            taken[1].add(j)
            matches.append(Match(true[-i], told[-j]))
    return matches


def _labelled(
    source: RecordingSet, recording: WholeRecording, members: set[int], idle: Sequence[str], length_us: int
) -> tuple[list[Span], list[Span]]:
    """True actions of the part, and those of other parts."""
    spans: tuple[list[Span], list[Span]] = [], []
    for number, start_us, end_us in recording.items:
        label = source.labels[source.items[number].label]
        if label not in idle:
            span = Span(label, start_us, length_us if end_us is None else end_us, start_us)
            spans[number not in members].append(span)
    return spans


def _most(span: Span, others: Sequence[Span]) -> float:
    return max((span.overlap(other) for other in others), default=0.0)


def _stack(pairs: Sequence[Pairs]) -> Pairs:
    rgb = [one.rgb for one in pairs if one.rgb is not None]
    event = [one.event for one in pairs if one.event is not None]
    numbers = [one.numbers for one in pairs if one.numbers is not None]
    return Pairs(np.stack(rgb) if rgb else None, np.stack(event), np.stack(numbers))


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True), np.float32)
