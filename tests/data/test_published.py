from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
from written_sets import (
    write_image,
    write_poker,
    write_published_hardvs,
    write_published_poker,
    write_sequence,
)

from velora_edge.bundle import EventInput
from velora_edge.config import published_class_names
from velora_edge.data.clips.clips import ClipSpec, Item
from velora_edge.data.layouts.published import (
    detect_published,
    find_frames,
    open_frames,
    open_hardvs,
    open_pokerevent,
)
from velora_edge.data.registry import open_clips
from velora_edge.errors import DatasetError

if TYPE_CHECKING:
    from pathlib import Path

SPEC = ClipSpec(length=2, image_size=(6, 8))


def all_problems(source: object, *, deep: bool = True) -> list[str]:
    found = list(source.set_problems())  # type: ignore[attr-defined]
    for index in range(len(source)):  # type: ignore[arg-type]
        found += source.problems(index, deep=deep)  # type: ignore[attr-defined]
    return found


def test_pokerevent_lists_give_names_labels_and_parts(tmp_path: Path) -> None:
    source = open_pokerevent(write_poker(tmp_path), SPEC)
    assert source.labels == ("clubs", "hearts")
    assert source.cameras == ("rgb", "event")
    assert list(source.items) == [
        Item("clubs/clubs_a", 0, "train"),
        Item("hearts/hearts_a", 1, "train"),
        Item("clubs/clubs_b", 0, "test"),
        Item("hearts/hearts_b", 1, "test"),
    ]
    assert [source.pairs(i) for i in range(4)] == [4, 5, 4, 5]
    assert all_problems(source) == []


def test_frames_without_lists_take_classes_from_folders(tmp_path: Path) -> None:
    source = open_frames(write_poker(tmp_path, lists=False), SPEC)
    assert source.labels == ("clubs", "hearts")
    assert list(source.items) == [
        Item("clubs/clubs_a", 0),
        Item("clubs/clubs_b", 0),
        Item("hearts/hearts_a", 1),
        Item("hearts/hearts_b", 1),
    ]


def test_images_come_in_rgb_order_and_in_step(tmp_path: Path) -> None:
    source = open_pokerevent(write_poker(tmp_path), SPEC)
    pairs = source.read(0, np.array([1, 3, 3]))
    assert pairs.rgb is not None
    assert pairs.event is not None
    assert pairs.rgb.shape == (3, 6, 8, 3)
    assert pairs.rgb[:, 0, 0].tolist() == [[1, 0, 10], [3, 0, 10], [3, 0, 10]]
    assert pairs.event[:, 5, 7].tolist() == [[101, 0, 10], [103, 0, 10], [103, 0, 10]]


def test_frames_are_ordered_by_number_whatever_the_template(tmp_path: Path) -> None:
    for i in (2, 10, 9):
        write_image(tmp_path / "c" / "s" / "s_dvs" / f"img-{i}.png", i)
    source = open_frames(tmp_path, SPEC)
    event = source.read(0, np.arange(3)).event
    assert event is not None
    assert event[:, 0, 0, 0].tolist() == [2, 9, 10]
    assert source.cameras == ("event",)


def test_hardvs_reads_rawframes_lists_and_numbers_in_steps_of_five(tmp_path: Path) -> None:
    for label in (1, 2):
        write_sequence(tmp_path / "rawframes" / f"action_00{label}" / f"dvSave-{label}", 3, rgb=False, step=5)
    lists = tmp_path / "HarDvs300_list"
    lists.mkdir()
    (lists / "train_label.txt").write_text("action_001/dvSave-1 3 0\n")
    (lists / "test_label.txt").write_text("rawframes/action_002/dvSave-2\t3\t1\n")
    source = open_hardvs(tmp_path, SPEC)
    assert source.labels == ("action_001", "action_002")
    assert list(source.items) == [
        Item("action_001/dvSave-1", 0, "train"),
        Item("action_002/dvSave-2", 1, "test"),
    ]
    pairs = source.read(1, np.arange(3))
    assert pairs.rgb is None
    assert pairs.event is not None
    assert pairs.event[:, 0, 0, 0].tolist() == [100, 101, 102]


def test_cameras_are_paired_by_frame_number_where_one_lacks_a_frame(tmp_path: Path) -> None:
    folder = tmp_path / "action_001" / "s"
    write_sequence(folder, 6, step=5)
    (folder / "s_aps" / "frame00000010.png").unlink()
    source = open_frames(tmp_path, SPEC)
    pairs = source.read(0, np.arange(source.pairs(0)))
    assert pairs.rgb is not None
    assert pairs.event is not None
    assert pairs.rgb[:, 0, 0, 0].tolist() == [0, 1, 3, 4, 5]
    assert pairs.event[:, 0, 0, 0].tolist() == [100, 101, 103, 104, 105]
    assert all_problems(source) == ["action_001/s: s_aps lacks frames that the other has: 10"]


def test_cameras_that_count_differently_are_paired_by_order(tmp_path: Path) -> None:
    folder = tmp_path / "c" / "s"
    write_sequence(folder, 3, event=False)
    write_sequence(folder, 4, rgb=False, first=1000)
    source = open_frames(tmp_path, SPEC)
    assert source.pairs(0) == 3
    assert all_problems(source) == ["c/s: 3 pictures but 4 event frames"]


def test_every_problem_is_told_with_its_place(tmp_path: Path) -> None:
    root = write_poker(tmp_path)
    with (root / "train_label.txt").open("a") as file:
        file.write("clubs/nowhere 4 0\nclubs/clubs_b nine 0\n../x 1 1\nhearts/hearts_b 5 1\n")
    cut = root / "clubs/clubs_a/clubs_a_aps/frame00000001.png"
    cut.write_bytes(cut.read_bytes()[:-20])
    damaged = root / "clubs/clubs_a/clubs_a_dvs/00000002.png"
    data = bytearray(damaged.read_bytes())
    data[len(data) // 2] ^= 0xFF
    damaged.write_bytes(data)
    (root / "hearts/hearts_a/hearts_a_aps/frame00000000.png").write_bytes(b"")
    (root / "hearts/hearts_b/hearts_b_dvs/00000004.png").unlink()
    source = open_pokerevent(root, SPEC)
    assert all_problems(source) == [
        "train_label.txt, line 3: no recording at clubs/nowhere",
        "train_label.txt, line 4: expected '<class>/<recording> <frames> <label>', "
        "got 'clubs/clubs_b nine 0'",
        "train_label.txt, line 5: the path ../x leaves the data set's folder",
        "test_label.txt, line 2: hearts/hearts_b is listed twice, in train and test",
        "clubs/clubs_a/clubs_a_aps/frame00000001.png: the image is cut off",
        "clubs/clubs_a/clubs_a_dvs/00000002.png: not an image that can be decoded",
        "hearts/hearts_a/hearts_a_aps/frame00000000.png: the file is empty",
        "hearts/hearts_b: hearts_b_dvs lacks frames that the other has: 4",
    ]


def test_a_quick_look_finds_what_heads_and_tails_tell(tmp_path: Path) -> None:
    root = write_poker(tmp_path)
    image = root / "clubs/clubs_a/clubs_a_aps/frame00000001.png"
    image.write_bytes(image.read_bytes()[:-20])
    (root / "clubs/clubs_a/clubs_a_aps/frame00000002.png").write_text("not an image at all")
    assert all_problems(open_pokerevent(root, SPEC), deep=False) == [
        "clubs/clubs_a/clubs_a_aps/frame00000001.png: the image is cut off",
        "clubs/clubs_a/clubs_a_aps/frame00000002.png: not a PNG file",
    ]


def test_a_list_that_counts_wrong_is_told(tmp_path: Path) -> None:
    root = write_poker(tmp_path)
    (root / "test_label.txt").write_text("clubs/clubs_b 7 0\nhearts/hearts_b 5 0\n")
    assert all_problems(open_pokerevent(root, SPEC)) == [
        "test_label.txt, line 2: label 0 is hearts here and clubs above",
        "clubs/clubs_b: the list says 7 images, there are 4",
    ]


def test_reading_damaged_images_names_each_and_the_remedy(tmp_path: Path) -> None:
    root = write_poker(tmp_path)
    for name in ("00000001.png", "00000003.png"):
        (root / "clubs/clubs_a/clubs_a_dvs" / name).write_bytes(b"\x89PNG\r\n\x1a\n....")
    with pytest.raises(DatasetError) as caught:
        open_pokerevent(root, SPEC).read(0, np.array([1, 1, 3]))
    assert caught.value.problems == (
        "clubs/clubs_a/clubs_a_dvs/00000001.png: the image is cut off",
        "clubs/clubs_a/clubs_a_dvs/00000003.png: the image is cut off",
    )
    assert str(caught.value).endswith(f"velora dataset check {root} lists all that is wrong")


def test_a_letterboxed_event_frame_has_blank_margins(tmp_path: Path) -> None:
    write_image(tmp_path / "c" / "s" / "s_dvs" / "0.png", 50, hw=(4, 8))
    spec = ClipSpec(length=1, image_size=(8, 8), event=EventInput(fit="letterbox"))
    event = open_frames(tmp_path, spec).read(0, np.array([0])).event
    assert event is not None
    assert event[0, :, 3, 0].tolist() == [255, 255, 50, 50, 50, 50, 255, 255]


def test_a_folder_without_recordings_says_what_was_expected(tmp_path: Path) -> None:
    (tmp_path / "c" / "s").mkdir(parents=True)
    with pytest.raises(DatasetError, match="expected <class>/<recording>/<recording>_dvs folders"):
        open_pokerevent(tmp_path, SPEC)


def test_layouts_of_frames_are_told_from_other_folders(tmp_path: Path) -> None:
    write_poker(tmp_path / "poker")
    write_sequence(tmp_path / "hardvs" / "rawframes" / "action_001" / "s", 1)
    (tmp_path / "other" / "a" / "b").mkdir(parents=True)
    names = ("poker", "hardvs", "hardvs/rawframes", "other", "poker/clubs")
    assert [detect_published(tmp_path / name) for name in names] == [
        "pokerevent", "hardvs", "hardvs", None, None
    ]  # fmt: skip
    assert find_frames(tmp_path / "hardvs") == tmp_path / "hardvs" / "rawframes"


@pytest.mark.parametrize(
    "root", ["Poker_Event", "Poker_Event/Poker_rgb_event", "Poker_Event/Poker_Event_list"]
)
def test_pokerevent_is_the_same_set_from_each_usual_root(
    root: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_published_poker(tmp_path, classes=3)
    wanted = [
        Item("A/train_000", 0, "train"), Item("2/train_001", 1, "train"), Item("3/train_002", 2, "train"),
        Item("A/test_000", 0, "test"), Item("2/test_001", 1, "test"), Item("3/test_002", 2, "test"),
    ]  # fmt: skip
    source = open_clips(tmp_path / root, SPEC)
    assert (source.kind, list(source.items), source.labels) == ("pokerevent", wanted, ("A", "2", "3"))
    assert all_problems(source) == []
    monkeypatch.chdir(tmp_path / root)
    assert list(open_clips(".", SPEC).items) == wanted
    assert source.read(0, np.array([0, 1])).rgb is not None


@pytest.mark.parametrize("root", ["HARDVS", "HARDVS/rawframes", "HARDVS/HarDvs300_list"])
def test_hardvs_is_the_same_set_from_each_usual_root(root: str, tmp_path: Path) -> None:
    write_published_hardvs(tmp_path, classes=2)
    source = open_clips(tmp_path / root, SPEC)
    assert source.kind == "hardvs"
    assert [(item.name, item.label, item.split) for item in source.items] == [
        ("action_001/dvSave-2021_10_01_10_15_00", 0, "train"),
        ("action_002/dvSave-2021_10_02_10_15_00", 1, "train"),
        ("action_001/dvSave-2021_10_01_10_15_30", 0, "test"),
        ("action_002/dvSave-2021_10_02_10_15_30", 1, "test"),
    ]
    assert all_problems(source) == []


def test_a_whole_pokerevent_has_its_114_published_names(tmp_path: Path) -> None:
    source = open_clips(write_published_poker(tmp_path), SPEC)
    assert len(set(source.labels)) == 114
    assert source.labels == published_class_names("pokerevent")
    twice = [label for label in source.labels if label.startswith("Jellyfish")]
    assert twice == ["Jellyfish", "Jellyfish (2)"]
    members = [item.name for item in source.items if source.labels[item.label] == "Jellyfish (2)"]
    assert members == ["Jellyfish/train_081", "Jellyfish/test_081"]


def test_names_of_hardvs_stand_in_the_order_of_its_folders() -> None:
    names = published_class_names("hardvs")
    assert len(set(names)) == 300
    assert [int(name[6:9]) for name in names] == list(range(1, 301))


@pytest.mark.parametrize("missing", ["train_label.txt", "test_label.txt"])
def test_a_set_whose_lists_are_missing_says_where_they_were_looked_for(missing: str, tmp_path: Path) -> None:
    home = write_published_poker(tmp_path, classes=1)
    (home / "Poker_Event_list" / missing).unlink()
    with pytest.raises(DatasetError) as caught:
        open_clips(home / "Poker_rgb_event", SPEC)
    assert caught.value.problems == (
        "no lists of its parts: expected train_label.txt and test_label.txt in one of "
        f"{home}/Poker_rgb_event, {home}, {home}/Poker_Event_list",
    )


def test_lists_of_another_set_beside_it_are_passed_over(tmp_path: Path) -> None:
    home = write_published_poker(tmp_path, classes=1)
    (home / "A_list").mkdir()
    for split in ("train", "test"):
        (home / "A_list" / f"{split}_label.txt").write_text("action_001/elsewhere 3 0\n")
    assert [item.name for item in open_clips(home, SPEC).items] == ["A/train_000", "A/test_000"]
