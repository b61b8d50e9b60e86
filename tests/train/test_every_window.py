from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from toy_runs import LABELS, SIDE, T, write_clips
from velora_runtime.inference.decision import Decider, DecisionSettings

from velora_edge.data.clips.clips import ClipSpec, Item
from velora_edge.data.clips.store import ClipStore
from velora_edge.data.layouts.recordings import PackedPair, WholeRecording
from velora_edge.errors import InputError
from velora_edge.train.evaluate import Part, evaluate
from velora_edge.train.windows import (
    ActionScores,
    Match,
    Span,
    WindowSource,
    evaluate_actions,
    match_actions,
    scores_over_time,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from velora_edge.train.batches import Batch

SPEC = ClipSpec(length=T, image_size=(SIDE, SIDE), sampling="stride", stride=2)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ClipStore]:
    opened = ClipStore(write_clips(tmp_path / "clips.h5", 4, pairs=7), SPEC)
    yield opened
    opened.close()


def test_every_window_is_a_clip_of_its_own(store: ClipStore) -> None:
    windows = WindowSource(store, [1, 3])
    # Seven pairs, of which a clip spans five.
    assert [item.name for item in windows.items] == [
        "clip001#0", "clip001#2", "clip001#1", "clip003#0", "clip003#2", "clip003#1",
    ]  # fmt: skip
    assert [item.label for item in windows.items] == [1, 1, 1, 3, 3, 3]
    found, expected = windows.clip(4), store.read(3, np.array([2, 4, 6]))
    np.testing.assert_array_equal(found.rgb, expected.rgb)
    np.testing.assert_array_equal(found.event, expected.event)


def test_pairs_of_one_number_are_the_same_in_all_windows(store: ClipStore) -> None:
    windows, seen = WindowSource(store, [1, 3]), dict[int, np.ndarray]()
    for index in range(6):
        found = windows.clip(index)
        assert found.event is not None
        assert found.numbers is not None
        for number, image in zip(found.numbers.tolist(), found.event, strict=True):
            np.testing.assert_array_equal(seen.setdefault(number, image), image)
    assert len(seen) == 2 * 7


def test_a_recording_shorter_than_a_clip_is_one_window(tmp_path: Path) -> None:
    store = ClipStore(write_clips(tmp_path / "short.h5", 4, pairs=2), SPEC)
    windows = WindowSource(store, [0])
    assert [item.name for item in windows.items] == ["clip000#0"]
    np.testing.assert_array_equal(windows.clip(0).rgb, store.read(0, np.array([0, 1, 1])).rgb)
    store.close()


def test_clips_spread_over_recordings_have_no_windows(tmp_path: Path) -> None:
    store = ClipStore(write_clips(tmp_path / "clips.h5", 4), ClipSpec(length=T, image_size=(SIDE, SIDE)))
    with pytest.raises(InputError, match=r"spread over whole recordings, .*; add --stride auto"):
        WindowSource(store, [0])
    store.close()


class Constant:
    """Tells the first class of every clip."""

    labels = LABELS
    spec = SPEC

    def logits(self, batch: Batch) -> np.ndarray:
        return np.eye(4, dtype=np.float32)[np.zeros(len(batch), int)]


def test_windows_are_scored_by_recording(store: ClipStore) -> None:
    windows = WindowSource(store, range(4))
    scores = evaluate(Constant(), windows, Part("all", np.arange(12), ""))["both"]  # type: ignore[arg-type]
    assert (scores.clips, scores.top1) == (12, 0.25)
    assert scores.interval is not None
    assert (scores.interval.method, scores.interval.recordings) == ("bootstrap", 4)


def span(label: str, start_s: float, end_s: float, decided_s: float | None = None) -> Span:
    decided_s = start_s if decided_s is None else decided_s
    return Span(label, *(round(1e6 * t_s) for t_s in (start_s, end_s, decided_s)))


def test_overlap_is_intersection_over_union() -> None:
    assert span("a", 0, 3).overlap(span("a", 1, 4)) == 0.5
    assert span("a", 0, 1).overlap(span("a", 2, 3)) == 0.0


def test_actions_of_one_label_are_matched_by_overlap_and_once_each() -> None:
    true = [span("wave", 0, 2), span("wave", 3, 5), span("rest", 6, 8)]
    told = [span("wave", 1, 5), span("wave", 0, 2.5), span("wave", 6, 8)]
    assert match_actions(true, told) == [Match(true[0], told[1]), Match(true[1], told[0])]


def test_what_was_missed_and_what_was_false_are_counted() -> None:
    true = [span("wave", 0, 2), span("wave", 3, 5), span("rest", 6, 8)]
    told = [span("wave", 0.5, 2, 0.75), span("wave", 4.9, 9), span("wave", 10, 11)]
    found = ActionScores(1, 3, 3, tuple(match_actions(true, told)))
    # The second one shares 0.1 s of 6 s with a true one: too little.
    assert (found.missed, found.false) == (2, 2)
    assert found.errors_ms() == {"start_ms": [500.0], "end_ms": [0.0], "decided_ms": [750.0]}
    assert found.as_dict() == {
        "recordings": 1, "true": 3, "told": 3, "missed": 2, "false": 2,
        "f1": {"0.1": 1 / 3, "0.25": 1 / 3, "0.5": 1 / 3},
        "start_ms": {"median": 500.0, "median_abs": 500.0},
        "end_ms": {"median": 0.0, "median_abs": 0.0},
        "decided_ms": {"median": 750.0, "median_abs": 750.0},
    }  # fmt: skip


def test_without_actions_there_are_no_figures() -> None:
    found = ActionScores(1, 0, 0, ()).as_dict()
    assert found["f1"] == {"0.1": None, "0.25": None, "0.5": None}
    assert found["start_ms"] is None


class BySecond:
    """Tells the class that an event image's grey names, of the newest pair of a clip."""

    labels = ("rest", "wave")
    spec = ClipSpec(length=2, image_size=(2, 2), sampling="stride", stride=2)

    def __init__(self) -> None:
        self.batches: list[int] = []

    def logits(self, batch: Batch) -> np.ndarray:
        assert batch.event is not None
        self.batches.append(len(batch))
        return np.eye(2, dtype=np.float32)[batch.event[:, -1, 0, 0, 0].numpy()] * 20


def pairs_of(labels: Sequence[int], start_us: int = 5_000_000) -> Iterator[PackedPair]:
    """Ten pairs a second, in arrays that are used again."""
    image = np.zeros((2, 2, 3), np.uint8)
    for number, label in enumerate(labels):
        image[:] = label
        yield PackedPair(start_us + 100_000 * number, None, image)


def test_scores_begin_with_the_first_full_clip_and_come_in_batches() -> None:
    predictor: Any = BySecond()
    pairs = enumerate(pairs_of([0, 1, 1, 0, 1, 0]))
    told = list(scores_over_time(predictor, pairs, ("event",), batch_size=3))
    assert [t for t, _ in told] == [2, 3, 4, 5]
    assert [int(scores.argmax()) for _, scores in told] == [1, 0, 1, 0]
    assert told[0][1].sum() == pytest.approx(1)
    assert predictor.batches == [3, 1]


def test_pairs_that_lack_a_camera_are_passed_over() -> None:
    pairs = enumerate(pairs_of([0] * 6))
    assert list(scores_over_time(BySecond(), pairs, ("rgb", "event"), batch_size=3)) == []


SETTINGS = DecisionSettings(smooth_ms=0, hold_ms=200, idle=("rest",))


def decided(items: list[tuple[int, int, int | None]], members: list[int]) -> ActionScores:
    """Of ten seconds in which the hand waves from the second to the fifth, and from the seventh on."""
    recording = WholeRecording(tuple(items), pairs_of([0] * 20 + [1] * 30 + [0] * 20 + [1] * 30))
    source: Any = SimpleNamespace(
        items=[Item("day@0", 0), Item("day@2", 1), Item("day@7", 1)],
        labels=BySecond.labels,
        cameras=("event",),
        whole=lambda members: iter([recording]),
    )
    predictor: Any = BySecond()
    return evaluate_actions(
        predictor, source, members, lambda: Decider(BySecond.labels, SETTINGS), idle=SETTINGS.idle
    )


def test_actions_are_decided_as_live_and_compared_with_the_segments() -> None:
    found = decided([(0, 0, 2_000_000), (1, 2_100_000, 5_000_000), (2, 7_000_000, None)], [0, 1, 2])
    assert (found.recordings, found.true, found.told, found.missed, found.false) == (1, 2, 2, 0, 0)
    # Seen from 2.0 s on, decided once it has held for 0.2 s.
    assert found.errors_ms() == {
        "start_ms": [0.0, -100.0], "end_ms": [0.0, 0.0], "decided_ms": [200.0, 100.0],
    }  # fmt: skip


def test_actions_in_segments_of_another_part_are_left_out() -> None:
    found = decided([(0, 0, 2_000_000), (1, 2_000_000, 5_000_000), (2, 7_000_000, None)], [1])
    assert (found.true, found.told, found.missed, found.false) == (1, 1, 0, 0)


def test_actions_where_nothing_is_labelled_are_false() -> None:
    found = decided([(1, 2_000_000, 5_000_000)], [1])
    assert (found.true, found.told, found.missed, found.false) == (1, 2, 0, 1)
