"""The sets that are made here: synthetic and digits."""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING

import numpy as np
import pytest

from velora_edge.bundle import EventInput
from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.layouts.nmnist import NmnistFile
from velora_edge.data.synthetic.digits import DigitsSet
from velora_edge.data.synthetic.synthetic import LABELS, SIZES, RenderedSet, make_clip, pack_clip
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

    from velora_edge.datatypes import EventBatch

SPEC = ClipSpec(length=4, image_size=(32, 32))
DIGITS = ClipSpec(length=6, image_size=(32, 32), sampling="stride", event=EventInput(window_us=50_000))


def test_the_synthetic_set_has_three_parts_of_all_labels() -> None:
    source = RenderedSet(SPEC)
    assert source.labels == LABELS
    for split, size in SIZES.items():
        labels = [item.label for item in source.items if item.split == split]
        assert np.bincount(labels).tolist() == [size // 12] * 12


def test_a_synthetic_clip_is_the_same_each_time_and_in_every_process() -> None:
    source = RenderedSet(SPEC, seed=3)
    first, again = source.clip(5), pickle.loads(pickle.dumps(source)).clip(5)
    for camera in ("rgb", "event"):
        np.testing.assert_array_equal(getattr(first, camera), getattr(again, camera))
    assert first.rgb is not None
    assert first.rgb.shape == (4, 32, 32, 3)
    other = RenderedSet(SPEC, seed=4).clip(5).rgb
    assert not np.array_equal(first.rgb, other)


def test_parts_of_the_synthetic_set_differ() -> None:
    source = RenderedSet(SPEC)
    test = next(i for i, item in enumerate(source.items) if item.split == "test")
    assert source.items[0].label == source.items[test].label
    assert not np.array_equal(source.clip(0).rgb, source.clip(test).rgb)


def test_a_stride_asks_for_a_longer_recording() -> None:
    source = RenderedSet(ClipSpec(length=3, image_size=(16, 16), sampling="stride", stride=2))
    assert source.pairs(0) == 5
    event = source.clip(0).event
    assert event is not None
    assert len(event) == 3


def test_a_window_that_is_not_the_time_between_pictures_is_refused() -> None:
    spec = ClipSpec(length=2, image_size=(16, 16), event=EventInput(window_us=100_000))
    with pytest.raises(DatasetError, match=r"pictures are 33333 us apart.*set clip\.event\.window_us=33333"):
        pack_clip(make_clip(0, pairs=2), spec)


def test_digits_are_divided_with_their_variants_together() -> None:
    source = DigitsSet(DIGITS)
    digits = {
        split: {i.name.split("-")[0] for i in source.items if i.split == split} for split in ("train", "val")
    }
    assert len(digits["train"]) + len(digits["val"]) == 1797
    assert not digits["train"] & digits["val"]
    assert {item.label for item in source.items} == set(range(10))


def test_a_simulated_digit_looks_like_a_recording_of_one() -> None:
    source = DigitsSet(DIGITS)
    events = source.events(2)
    assert events.t_us[0] >= 0
    assert events.t_us[-1] <= 300_000
    assert 1000 < len(events) < 12_000
    assert 0.3 < events.p.mean() < 0.7
    event = source.clip(2).event
    assert event is not None
    assert event.shape == (6, 32, 32, 3)
    busy = (event != 255).any(axis=3).mean(axis=(1, 2))
    assert (busy > 0.05).all()
    assert (busy < 0.6).all()


def edges_and_motion(batches: list[EventBatch]) -> np.ndarray:
    """For each saccade of 100 ms: where ON lies from OFF, and how far the digit goes, (x, y) each, pixels."""
    found = np.zeros((3, 4))
    for events in batches:
        t_us, place = events.t_us - events.t_us[0], np.stack([events.x, events.y], axis=1).astype(float)
        for leg in range(3):
            now = (t_us >= leg * 100_000) & (t_us < (leg + 1) * 100_000)
            on, late = events.p > 0, t_us > leg * 100_000 + 50_000
            found[leg, :2] += place[now & on].mean(axis=0) - place[now & ~on].mean(axis=0)
            found[leg, 2:] += place[now & late].mean(axis=0) - place[now & ~late].mean(axis=0)
    return found / len(batches)


def test_simulated_digits_move_as_nmnist_s_and_have_edges_in_the_same_order(shared_nmnist: Path) -> None:
    real, made = NmnistFile(shared_nmnist / "train_1000.h5", DIGITS), DigitsSet(DIGITS)
    wanted = edges_and_motion([real.events(i) for i in range(40)])
    found = edges_and_motion([made.events(i) for i in range(0, 9000, 450)])
    is_clear = np.abs(wanted) > 0.6
    assert is_clear.sum() >= 8
    np.testing.assert_array_equal(np.sign(found[is_clear]), np.sign(wanted[is_clear]))
    ratio = np.abs(found[is_clear]) / np.abs(wanted[is_clear])
    assert ratio.min() > 0.4, found
    assert ratio.max() < 2.5, found


def test_a_simulated_digit_is_the_same_each_time() -> None:
    first, again = (DigitsSet(DIGITS, seed=1).events(7) for _ in range(2))
    np.testing.assert_array_equal(first.t_us, again.t_us)
    np.testing.assert_array_equal(first.x, again.x)
    assert not np.array_equal(first.t_us, DigitsSet(DIGITS, seed=2).events(7).t_us)
