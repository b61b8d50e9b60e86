from __future__ import annotations

from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from velora_edge.bundle import EventInput
from velora_edge.data.clips.clips import ClipSpec, Item, SplitConfig, split_items
from velora_edge.data.layouts.nmnist import NmnistFile
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ClipSpec(length=2, image_size=(4, 4), sampling="stride", event=EventInput(window_us=100))
WHITE, BLUE, RED = [255, 255, 255], [0, 0, 255], [255, 0, 0]


def write(path: Path, **changes: object) -> Path:
    """Two recordings on a 4x4 sensor: one of 250 us with ON at (1, 2) and OFF at (3, 0); one of one event."""
    parts: dict[str, object] = {
        "events/t": np.array([50, 60, 180, 299, 7], np.uint32),
        "events/x": np.array([1, 3, 1, 0, 2], np.uint8),
        "events/y": np.array([2, 0, 2, 0, 2], np.uint8),
        "events/p": np.array([1, 0, 0, 1, 1], np.uint8),
        "offsets": np.array([0, 4, 5], np.int64),
        "label": np.array([3, 8], np.uint8),
        "sample_id": np.array([17, 4], np.int32),
    }
    with h5py.File(path, "w") as file:
        for name, value in {**parts, **changes}.items():
            if value is not None:
                file[name] = value
        file.attrs["sensor"] = [4, 4]
    return path


def test_windows_follow_each_other_from_the_first_event(tmp_path: Path) -> None:
    source = NmnistFile(write(tmp_path / "n.h5"), SPEC)
    assert source.items == [Item("00017", 3), Item("00004", 8)]
    assert source.labels == tuple("0123456789")
    assert source.cameras == ("event",)
    assert [source.pairs(i) for i in range(2)] == [2, 1]
    clip = source.clip(0)
    assert clip.rgb is None
    assert clip.event is not None
    first, second = clip.event
    assert first[2, 1].tolist() == RED
    assert first[0, 3].tolist() == BLUE
    assert second[2, 1].tolist() == BLUE
    assert second[0, 3].tolist() == WHITE
    assert (first != 255).any(axis=2).sum() == 2
    source.close()


def test_a_short_recording_repeats_its_window(tmp_path: Path) -> None:
    source = NmnistFile(write(tmp_path / "n.h5"), SPEC)
    event = source.clip(1).event
    assert event is not None
    np.testing.assert_array_equal(event[0], event[1])
    assert event[0, 2, 2].tolist() == RED
    source.close()


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"offsets": None}, "offsets is missing"),
        ({"offsets": np.array([0, 4])}, "offsets: expected 3 for 2 labels, got 2"),
        ({"offsets": np.array([0, 4, 6])}, "offsets: expected to rise from 0 to 5, the number of events"),
        ({"events/p": np.zeros(3, np.uint8)}, "events: lengths differ: events/t 5"),
    ],
)
def test_parts_that_do_not_fit_are_told(changes: dict[str, object], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=problem):
        NmnistFile(write(tmp_path / "n.h5", **changes), SPEC)


def test_problems_of_recordings_are_told(tmp_path: Path) -> None:
    path = write(
        tmp_path / "n.h5",
        **{
            "offsets": np.array([0, 4, 4, 5]),
            "label": np.array([0, 1, 2], np.uint8),
            "sample_id": np.arange(3),
            "events/t": np.array([50, 40, 180, 299, 7], np.uint32),
            "events/x": np.array([1, 9, 1, 0, 2], np.uint8),
        },
    )
    source = NmnistFile(path, SPEC)
    assert [source.problems(i, deep=True) for i in range(3)] == [
        ["00000: 1 times are earlier than the one before", "00000: 1 events lie outside the sensor of 4x4"],
        ["00001: no events"],
        [],
    ]
    with pytest.raises(DatasetError, match="00001: no events"):
        source.pairs(1)
    source.close()


def test_the_real_subset_is_whole_and_divides_by_class(shared_nmnist: Path) -> None:
    spec = ClipSpec(length=6, image_size=(32, 32), sampling="stride", event=EventInput(window_us=50_000))
    source = NmnistFile(shared_nmnist / "train_1000.h5", spec)
    assert len(source) == 1000
    assert all(source.problems(i, deep=True) == [] for i in range(0, 1000, 50))
    parts = split_items(source.items, SplitConfig(val=0.1, test=0.2))
    assert [len(parts[split]) for split in ("train", "val", "test")] == [701, 100, 199]
    event = source.clip(0).event
    assert event is not None
    assert event.shape == (6, 32, 32, 3)
    busy = (event != 255).any(axis=3).mean(axis=(1, 2))
    assert (busy > 0.05).all()
    assert (busy < 0.6).all()
    source.close()
