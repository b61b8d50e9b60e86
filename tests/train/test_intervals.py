from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from toy_runs import LABELS, SIDE, T, toy_tree

from velora_edge.data.clips.clips import ClipSpec, Item, Pairs
from velora_edge.data.clips.store import ClipStoreWriter
from velora_edge.train.objective import ChanceWatch, Interval, interval_of, recording_of, wilson
from velora_edge.train.session import train
from velora_edge.train.settings import TrainConfig

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("right", "count", "ends"),
    [
        # R: prop.test(x, n, correct = FALSE)$conf.int
        (8, 10, (0.4901625, 0.9433178)),
        (0, 10, (0.0, 0.2775328)),
        (10, 10, (0.7224672, 1.0)),
        (45, 50, (0.7864, 0.9565)),
    ],
)
def test_wilson_s_interval(right: int, count: int, ends: tuple[float, float]) -> None:
    assert wilson(right, count) == pytest.approx(ends, abs=1e-4)


def test_clips_of_recordings_told_once_have_wilson_s_interval() -> None:
    right = np.array([True] * 8 + [False] * 2)
    found = interval_of(right, [f"r{k}" for k in range(10)])
    assert found == Interval(*wilson(8, 10), "wilson", 10)


def test_windows_of_one_recording_have_wilson_s_interval() -> None:
    assert interval_of(np.array([True, False]), ["a", "a"]) == Interval(*wilson(1, 2), "wilson", 1)


def test_windows_that_are_alike_within_a_recording_count_as_their_recordings_do() -> None:
    """Ten recordings of 50 windows, all right or all wrong: as ten answers, not as 500."""
    right = np.repeat(np.array([True] * 8 + [False] * 2), 50)
    names = np.repeat([f"r{k}" for k in range(10)], 50).tolist()
    found = interval_of(right, names)
    assert (found.method, found.recordings) == ("bootstrap", 10)
    # Quantiles of the binomial distribution of 10 draws with 0.8 are 5 and 10.
    assert (found.low, found.high) == pytest.approx((0.5, 1.0))


def test_the_bootstrap_weighs_recordings_by_their_windows() -> None:
    right = np.array([True] * 90 + [False] * 10)
    found = interval_of(right, ["long"] * 90 + ["short"] * 10)
    assert (found.low, found.high) == (0.0, 1.0)
    assert interval_of(right, ["long"] * 90 + ["short"] * 10) == found


def test_recordings_that_are_all_right_leave_doubt() -> None:
    found = interval_of(np.ones(60, bool), np.repeat(["a", "b", "c"], 20).tolist())
    assert found == Interval(*wilson(3, 3), "wilson over recordings", 3)
    assert found.low < 0.5


@pytest.mark.parametrize(
    ("name", "recording"),
    [
        ("wave/a", "wave/a"),
        ("day1/day@1.5", "day1/day"),
        ("day@1e+02#17", "day"),
        ("wave/a#3", "wave/a"),
        ("wave/me@home", "wave/me@home"),
    ],
)
def test_a_clip_s_name_begins_with_its_recording(name: str, recording: str) -> None:
    assert recording_of(name) == recording


def warnings_of(*seen: tuple[int, float, float], labels: list[int] | None = None) -> list[str]:
    told: list[str] = []
    watch = ChanceWatch(labels or [0, 1] * 20, ("rest", "wave"), 9, told.append)
    for epoch, top1, loss in seen:
        watch.see(epoch, top1, loss)
    return told


def test_a_run_at_chance_is_told_once_after_a_third_of_the_epochs() -> None:
    (line,) = warnings_of(*((epoch, 0.5, 0.7) for epoch in range(1, 10)))
    assert line == (
        "still at chance after a third of the epochs: top-1 of 40 clips of validation is 50.0% at best, and "
        "rest for each of them gives 50.0%, by luck up to 64.8%. Training loss 0.70, that of guessing 0.69: "
        "the training clips are not learned either: try train.lr three times as large or as small, "
        "a tower with weights (model.backbone), and clips that cover the action (clip.stride)"
    )


def test_a_run_that_learns_its_training_clips_alone_is_told_to_record_more() -> None:
    (line,) = warnings_of((3, 0.55, 0.1))
    assert "so few clips cannot show more. Training loss 0.10" in line
    assert "more and more different recordings would help" in line


def test_a_run_that_was_above_chance_once_is_not_told() -> None:
    assert warnings_of((1, 0.8, 0.5), (2, 0.5, 0.7), (3, 0.5, 0.7)) == []


def test_chance_is_the_most_frequent_class() -> None:
    labels = [0] * 90 + [1] * 10
    (line,) = warnings_of((3, 0.9, 0.3), labels=labels)
    assert "rest for each of them gives 90.0%" in line


def test_a_run_of_two_epochs_is_not_told() -> None:
    told: list[str] = []
    watch = ChanceWatch([0, 1], ("rest", "wave"), 2, told.append)
    watch.see(1, 0.0, 0.7)
    watch.see(2, 0.0, 0.7)
    assert told == []


def test_without_validation_nothing_is_told() -> None:
    told: list[str] = []
    ChanceWatch([], ("rest", "wave"), 9, told.append)
    assert told == []


@pytest.mark.parametrize("tuning", ["lora", "linear"])
def test_training_on_clips_that_all_look_alike_warns_of_chance(tuning: str, tmp_path: Path) -> None:
    tree = toy_tree(tmp_path, write_alike(tmp_path / "clips.h5"), epochs=3)
    tree["data"] = {"path": tree["data"]["path"], "split": {"val": 0.4}}
    tree["model"]["tuning"] = tuning
    tree["train"]["cache_views"] = 1 if tuning == "linear" else 0
    told: list[str] = []
    train(TrainConfig.model_validate(tree), say=told.append)
    assert [line[:15] for line in told].count("still at chance") == 1


def write_alike(path: Path) -> Path:
    """Forty clips of four classes and one picture."""
    images = np.full((T + 1, SIDE, SIDE, 3), 90, np.uint8)
    with ClipStoreWriter(path, LABELS, ("rgb", "event"), ClipSpec(T, (SIDE, SIDE)), "toy") as writer:
        for number in range(40):
            writer.add(Item(f"clip{number:03}", number % 4), Pairs(images, images))
        writer.finish()
    return path
