from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from written_sets import write_poker

from velora_edge.data.build import build_store, check, leave_out_damaged, require_sound
from velora_edge.data.clips.clips import ClipSpec
from velora_edge.data.clips.store import ClipStore
from velora_edge.data.layouts.published import open_pokerevent
from velora_edge.data.registry import detect, open_clips
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ClipSpec(length=2, image_size=(6, 8))


def test_a_report_counts_by_class_and_part(tmp_path: Path) -> None:
    ticks: list[int] = []
    report = check(open_pokerevent(write_poker(tmp_path), SPEC), tick=lambda: ticks.append(1))
    assert len(ticks) == 4
    assert report.as_dict() == {
        "kind": "pokerevent",
        "cameras": ["rgb", "event"],
        "classes": 2,
        "recordings": 4,
        "counts": {"clubs": {"train": 1, "test": 1}, "hearts": {"train": 1, "test": 1}},
        "pairs": {"min": 4, "median": 5, "max": 5},
        "problems": [],
        "warnings": [],
    }


def test_a_class_without_recordings_is_told_but_does_not_stop_training(tmp_path: Path) -> None:
    root = write_poker(tmp_path)
    (root / "train_label.txt").write_text("clubs/clubs_a 4 0\nhearts/hearts_a 5 2\n")
    (root / "test_label.txt").write_text("")
    source = open_pokerevent(root, SPEC)
    assert check(source).problems == ("class_1: the class has no recordings",)
    require_sound(source)


def test_training_is_refused_with_everything_that_is_wrong(tmp_path: Path) -> None:
    root = write_poker(tmp_path)
    (root / "clubs/clubs_a/clubs_a_dvs/00000002.png").unlink()
    (root / "hearts/hearts_b/hearts_b_aps/frame00000000.png").write_bytes(b"")
    with pytest.raises(DatasetError) as caught:
        require_sound(open_pokerevent(root, SPEC))
    assert caught.value.problems == (
        "clubs/clubs_a: clubs_a_dvs lacks frames that the other has: 2",
        "hearts/hearts_b/hearts_b_aps/frame00000000.png: the file is empty",
    )


def test_a_store_holds_what_the_set_holds(tmp_path: Path) -> None:
    source = open_pokerevent(write_poker(tmp_path / "set"), SPEC)
    assert build_store(source, tmp_path / "s.h5") == 18
    store = open_clips(tmp_path / "s.h5", SPEC)
    assert isinstance(store, ClipStore)
    assert list(store.items) == list(source.items)
    assert store.labels == source.labels
    for index in range(4):
        which = np.arange(source.pairs(index))
        packed, read = store.read(index, which), source.read(index, which)
        np.testing.assert_array_equal(packed.rgb, read.rgb)
        np.testing.assert_array_equal(packed.event, read.event)
    store.close()


def test_longer_recordings_keep_pairs_evenly(tmp_path: Path) -> None:
    source = open_pokerevent(write_poker(tmp_path / "set"), SPEC)
    build_store(source, tmp_path / "s.h5", most_pairs=2)
    store = ClipStore(tmp_path / "s.h5", SPEC)
    event = store.read(1, np.arange(2)).event
    assert event is not None
    assert event[:, 0, 0, 0].tolist() == [101, 103]
    store.close()


def test_a_set_with_damage_is_not_packed_and_all_of_it_is_told(tmp_path: Path) -> None:
    root = write_poker(tmp_path / "set")
    (root / "clubs/clubs_a/clubs_a_dvs/00000002.png").write_bytes(b"junk")
    (root / "hearts/hearts_a/hearts_a_dvs/00000004.png").unlink()
    (root / "hearts/hearts_b/hearts_b_aps/frame00000003.png").write_bytes(b"")
    with (root / "test_label.txt").open("a") as file:
        file.write("clubs/gone 4 0\n")
    with pytest.raises(DatasetError) as caught:
        build_store(open_pokerevent(root, SPEC), tmp_path / "s.h5")
    assert caught.value.problems == (
        "test_label.txt, line 3: no recording at clubs/gone",
        "clubs/clubs_a/clubs_a_dvs/00000002.png: not a PNG file",
        "hearts/hearts_a: hearts_a_dvs lacks frames that the other has: 4",
        "hearts/hearts_b/hearts_b_aps/frame00000003.png: the file is empty",
    )
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


@pytest.mark.parametrize("name", ["empty", "text.txt", "missing"])
def test_what_is_no_data_set_is_named(name: str, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.txt").write_text("hello")
    with pytest.raises(DatasetError, match=name):
        open_clips(tmp_path / name, SPEC)


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"expected data\.kind auto, store, nmnist, hardvs, pokerevent, rec"
    ):
        open_clips(write_poker(tmp_path), SPEC, kind="ucf101")


def test_layouts_are_told_by_what_is_there(tmp_path: Path) -> None:
    assert detect(write_poker(tmp_path / "poker")) == "pokerevent"
    (tmp_path / "hardvs").mkdir()
    write_poker(tmp_path / "hardvs" / "rawframes", lists=False)
    assert detect(tmp_path / "hardvs") == "hardvs"
    assert detect(tmp_path / "hardvs" / "rawframes") == "hardvs"


def _damage(root: Path) -> None:
    """One recording with a broken picture inside, one without pictures, a line of a list without either."""
    picture = root / "clubs/clubs_a/clubs_a_dvs/00000002.png"
    data = bytearray(picture.read_bytes())
    data[len(data) // 2] ^= 0xFF
    picture.write_bytes(data)
    for file in (root / "hearts/hearts_b/hearts_b_aps").iterdir():
        file.unlink()
    with (root / "test_label.txt").open("a") as file:
        file.write("clubs/nowhere 4 0\n")


PROBLEMS = [
    "test_label.txt, line 3: no recording at clubs/nowhere",
    "clubs/clubs_a/clubs_a_dvs/00000002.png: not an image that can be decoded",
    "hearts/hearts_b: hearts_b_aps has no images",
]


def test_what_is_damaged_is_left_out_of_a_store_and_told(tmp_path: Path) -> None:
    root = write_poker(tmp_path / "set")
    _damage(root)
    skipped: list[str] = []
    packed = build_store(open_pokerevent(root, SPEC), tmp_path / "s.h5", skip=skipped.append)
    store = ClipStore(tmp_path / "s.h5", SPEC)
    assert [item.name for item in store.items] == ["hearts/hearts_a", "clubs/clubs_b"]
    assert packed == 9
    assert skipped == PROBLEMS
    assert store.event_frames == "files"


def test_recordings_that_can_be_read_are_kept_and_the_others_told(tmp_path: Path) -> None:
    root = write_poker(tmp_path / "set")
    _damage(root)
    skipped: list[str] = []
    source = open_pokerevent(root, SPEC)
    assert leave_out_damaged(source, np.arange(4), skipped.append).tolist() == [1, 2]
    assert skipped == PROBLEMS


def test_a_set_of_which_nothing_can_be_read_is_an_error(tmp_path: Path) -> None:
    root = write_poker(tmp_path / "set")
    for file in root.rglob("*.png"):
        file.write_bytes(b"junk")
    source = open_pokerevent(root, SPEC)
    with pytest.raises(DatasetError, match="no recording can be read"):
        leave_out_damaged(source, np.arange(4), lambda problem: None)
    with pytest.raises(DatasetError, match="no recording can be read"):
        build_store(source, tmp_path / "s.h5", skip=lambda problem: None)
    assert not (tmp_path / "s.h5").exists()
