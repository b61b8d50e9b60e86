from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
from recordings import write_events
from videos import write_video

from tests.events import aedat4_writer
from velora_edge.bundle import EventInput
from velora_edge.data.build import build_store, check, pack_once
from velora_edge.data.clips.clips import ClipSpec, Item, SplitConfig
from velora_edge.data.clips.store import ClipStore
from velora_edge.data.layouts.recording_index import cut_by_time, has_recordings, index_recordings
from velora_edge.data.layouts.recordings import RuntimePacker, open_recordings
from velora_edge.errors import DatasetError, RecordingError
from velora_edge.events.registry import open_events
from velora_edge.events.writers import open_writer
from velora_edge.preprocessing.folder import Facts

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from velora_edge.data.layouts.recordings import PackedPair

SPEC = ClipSpec(length=4, image_size=(16, 16), event=EventInput(window_us=40_000))
FRAMES_US = [40_000 * k for k in range(1, 10)]


class Breaks(RuntimePacker):
    """Files become unreadable behind their first pair."""

    def pairs(self, events: Path, video: Path | None, spec: ClipSpec) -> Iterator[PackedPair]:
        yield next(iter(super().pairs(events, video, spec)))
        raise RecordingError("cannot be read: gone", path=events, place="byte 7")


def by_class(root: Path) -> Path:
    for label, name in (("wave", "a"), ("wave", "b"), ("rest", "c")):
        (root / label).mkdir(parents=True, exist_ok=True)
        write_events(root / label / f"{name}.raw", start_us=0)
        write_video(root / label / f"{name}.mp4", FRAMES_US)
    return root


def long_one(root: Path, segments: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    write_events(root / "day.raw", start_us=0, duration_us=1_000_000, count=10_000)
    (root / "segments.csv").write_text(segments)
    return root


def test_a_class_is_a_folder_and_a_video_lies_beside_its_events(tmp_path: Path) -> None:
    source = open_recordings(by_class(tmp_path), SPEC, RuntimePacker())
    assert source.labels == ("rest", "wave")
    assert source.items == [Item("rest/c", 0), Item("wave/a", 1), Item("wave/b", 1)]
    assert source.cameras == ("rgb", "event")
    assert source.set_problems() == []
    assert [source.problems(i, deep=True) for i in range(3)] == [[], [], []]


def test_recordings_are_packed_as_the_runtime_packs_them(tmp_path: Path) -> None:
    source = open_recordings(by_class(tmp_path), SPEC, RuntimePacker())
    # The video starts at 40 ms on its own clock; the last window ends with the events.
    assert source.pairs(1) == 9
    pairs = source.read(1, np.arange(9))
    assert pairs.rgb is not None
    assert pairs.event is not None
    assert pairs.rgb.shape == pairs.event.shape == (9, 16, 16, 3)
    grey = pairs.rgb.astype(int).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(grey, [10 * k for k in range(9)], atol=4)
    assert (pairs.event != 255).any(axis=(1, 2, 3)).all()


def test_folders_of_parts_divide_the_set(tmp_path: Path) -> None:
    for part in ("train", "Test"):
        (tmp_path / part / "wave").mkdir(parents=True)
        write_events(tmp_path / part / "wave" / "a.raw", count=10)
    index = index_recordings(tmp_path)
    assert [recording.item for recording in index.recordings] == [
        Item("Test/wave/a", 0, "test"),
        Item("train/wave/a", 0, "train"),
    ]


def test_segments_cut_a_long_recording(tmp_path: Path) -> None:
    root = long_one(tmp_path, "start,end,label,split\n0.5,0.9,wave,test\n0,0.2,rest,\n0.2,0.4,wave,train\n")
    source = open_recordings(root, SPEC, RuntimePacker())
    assert source.items == [
        Item("day@0", 0, None),
        Item("day@0.2", 1, "train"),
        Item("day@0.5", 1, "test"),
    ]
    # The first of 40 ms windows ends at 40 ms, which is where seconds are counted from.
    assert [source.pairs(i) for i in range(3)] == [5, 5, 10]
    assert [source.pairs(i) for i in (2, 0)] == [10, 5]


def test_every_wrong_line_of_segments_is_told(tmp_path: Path) -> None:
    root = long_one(
        tmp_path, "start,end,label,split\n0,x,wave,\n0.5,0.2,wave,\n0,1,,\n0,1,wave,dev\n0,1,ok,\n"
    )
    assert index_recordings(root).problems == (
        "segments.csv, line 2: expected seconds, got start '0' and end 'x'",
        "segments.csv, line 3: expected 0 <= start < end, got 0.5 and 0.2",
        "segments.csv, line 4: no label",
        "segments.csv, line 5: expected the split train, val or test, got 'dev'",
    )


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        ("begin,end,label", "segments.csv: the first line lacks start"),
        ("", "segments.csv: the first line lacks end, label, start"),
    ],
)
def test_segments_without_their_columns_are_refused(header: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=problem):
        index_recordings(long_one(tmp_path, f"{header}\n0,1,x\n"))


def test_a_segment_beyond_the_recording_is_told(tmp_path: Path) -> None:
    source = open_recordings(long_one(tmp_path, "start,end,label\n5,6,late\n"), SPEC, RuntimePacker())
    (problem,) = source.problems(0, deep=True)
    assert problem.startswith("day@5: begins at 5.0 s, the events end at ")


def test_everything_wrong_with_a_folder_is_told(tmp_path: Path) -> None:
    root = by_class(tmp_path)
    (root / "wave" / "a.raw").write_text("not events")
    write_video(root / "wave" / "b.mp4", FRAMES_US[:3])
    (root / "rest" / "c.mp4").write_bytes(b"not a video")
    write_video(root / "rest" / "alone.mp4", FRAMES_US)
    (root / "empty").mkdir()
    source = open_recordings(root, SPEC, RuntimePacker())
    assert source.set_problems() == [
        "empty: no event files",
        "rest/alone.mp4: no event file of the same name",
    ]
    problems = [source.problems(i, deep=True) for i in range(3)]
    assert [len(found) for found in problems] == [1, 1, 1]
    assert problems[0][0].startswith("rest/c: c.mp4: cannot be read as a video")
    assert problems[1][0].startswith("wave/a: not a recording of any known format")
    assert problems[2] == ["wave/b: the video lasts 0.12 s, its events 0.40 s"]


def packed_of(root: Path, folder: Path, spec: ClipSpec = SPEC) -> tuple[Path, list[str]]:
    told: list[str] = []
    store = pack_once(open_recordings(root, spec, RuntimePacker()), folder, say=told.append)
    store.close()
    return store.path, told


def test_recordings_are_packed_once_and_found_again(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set")
    first, told = packed_of(root, tmp_path / "packed")
    assert told == [f"{root}: packing 3 recordings into {first}, where the next run finds them"]
    stamp = first.stat().st_mtime_ns
    second, told = packed_of(root, tmp_path / "packed")
    assert (second, told) == (first, [f"{root}: packed before, in {first}"])
    assert first.stat().st_mtime_ns == stamp
    store = ClipStore(first, SPEC)
    assert store.items == open_recordings(root, SPEC).items
    store.close()


def test_other_images_and_other_recordings_are_packed_anew(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set")
    first, _ = packed_of(root, tmp_path / "packed")
    larger, _ = packed_of(root, tmp_path / "packed", replace(SPEC, image_size=(24, 24)))
    write_events(root / "wave" / "a.raw", start_us=0, count=3999)
    changed, _ = packed_of(root, tmp_path / "packed")
    assert len({first, larger, changed}) == 3


def test_what_is_damaged_is_left_out_of_a_packed_set_where_that_is_asked_for(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set")
    (root / "wave" / "a.raw").write_bytes(b"nothing of the kind")
    source = open_recordings(root, SPEC, RuntimePacker())
    with pytest.raises(DatasetError, match="wave/a: not a recording of any known format"):
        pack_once(source, tmp_path / "packed")
    told: list[str] = []
    store = pack_once(source, tmp_path / "packed", skip_damaged=True, say=told.append)
    assert [item.name for item in store.items] == ["rest/c", "wave/b"]
    assert told[1].startswith("left out: wave/a: not a recording of any known format")
    store.close()


def test_without_a_packer_the_remedy_is_to_pack(tmp_path: Path) -> None:
    with pytest.raises(
        DatasetError, match=r"velora dataset build .* OUT\.h5 --for CONFIG, then set data\.path"
    ):
        open_recordings(by_class(tmp_path), SPEC).pairs(0)


def test_folders_with_recordings_are_told_from_others(tmp_path: Path) -> None:
    by_class(tmp_path / "classes")
    long_one(tmp_path / "long", "start,end,label\n")
    long_one(tmp_path / "many" / "day1", "start,end,label\n")
    (tmp_path / "other" / "x").mkdir(parents=True)
    for take in ("parts/train/wave/2026-11-28_15-44-07", "deep/some/where/far"):
        (tmp_path / take).mkdir(parents=True)
        write_events(tmp_path / take / "events.raw", count=10)
    names = ("classes", "long", "many", "parts", "other", "deep")
    assert [name for name in names if has_recordings(tmp_path / name)] == ["classes", "long", "many", "parts"]


def test_a_davis_file_holds_both_cameras(tmp_path: Path) -> None:
    width, height = 16, 8
    events = [(1000 * k, k % width, k % height, k % 2) for k in range(120)]
    packets = [(0, aedat4_writer.events(events))]
    for k in (1, 2):
        fields = {0: 40_000 * k, 5: 16, 6: width, 7: height}
        packets.append((1, aedat4_writer.frame(fields, bytes([50 * k]) * (3 * width * height))))
    streams = [aedat4_writer.stream(0, "EVTS"), aedat4_writer.stream(1, "FRME")]
    (tmp_path / "wave").mkdir()
    (tmp_path / "wave" / "a.aedat4").write_bytes(aedat4_writer.recording(streams, packets))
    source = open_recordings(tmp_path, SPEC, RuntimePacker())
    assert source.cameras == ("rgb", "event")
    pairs = source.read(0, np.arange(source.pairs(0)))
    assert pairs.rgb is not None
    assert pairs.rgb[:, 8, 8].tolist() == [[50, 50, 50], [100, 100, 100]]
    assert pairs.event is not None
    assert (pairs.event != 255).any(axis=(1, 2, 3)).all()


def test_folders_that_velora_record_wrote_are_recordings(tmp_path: Path) -> None:
    take = tmp_path / "wave" / "monday"
    take.mkdir(parents=True)
    Facts(started="2026-01-01T00:00:00Z").write(take)
    write_events(take / "events.raw", start_us=7_000_000)
    write_video(take / "video.mp4", FRAMES_US)
    (take / "timestamps.txt").write_text("".join(f"{7_000_000 + t}\n" for t in FRAMES_US))
    source = open_recordings(tmp_path, SPEC, RuntimePacker())
    assert [item.name for item in source.items] == ["wave/monday"]
    assert source.set_problems() == []
    assert source.problems(0, deep=True) == []
    assert source.pairs(0) == 9
    event = source.read(0, np.arange(9)).event
    assert event is not None
    assert (event != 255).any(axis=(1, 2, 3)).all()


def write_gap(path: Path) -> Path:
    """A second of events, 40 days without one, and a second of events; as text."""
    path.parent.mkdir(parents=True, exist_ok=True)
    times_us = [
        *range(0, 1_000_000, 1000),
        *(40 * 24 * 3600 * 1_000_000 + t for t in range(0, 1_000_000, 1000)),
    ]
    rows = "".join(f"{t},{k % 8},{k % 6},1\n" for k, t in enumerate(times_us))
    path.write_text(f"# geometry: 8x6\nt,x,y,p\n{rows}")
    return path


def test_days_without_an_event_are_passed_over_and_told(tmp_path: Path) -> None:
    events = write_gap(tmp_path / "wave" / "a.npy")  # by content, it is text
    source = open_recordings(tmp_path, SPEC, RuntimePacker())
    # Windows with events, the four of a clip without, the last of the gap, windows with events.
    assert source.pairs(0) == 25 + 4 + 1 + 25
    assert source.problems(0, deep=True) == [
        "wave/a: there is no event from 999,000 to 3,456,000,000,000 us (3,455,999 s): "
        "its clock jumped, or the file is damaged"
    ]
    assert events.is_file()


@pytest.mark.parametrize("ending", ["raw", "h5", "aedat4"])
def test_a_video_lies_beside_events_of_any_format(tmp_path: Path, ending: str) -> None:
    source = open_recordings(by_class(tmp_path / "raw"), SPEC, RuntimePacker())
    folder = tmp_path / "set" / "wave"
    folder.mkdir(parents=True)
    batch = open_events(tmp_path / "raw" / "wave" / "a.raw").read()
    if ending == "aedat4":
        rows = list(
            zip(batch.t_us.tolist(), batch.x.tolist(), batch.y.tolist(), batch.p.tolist(), strict=True)
        )
        streams = [aedat4_writer.stream(0, "EVTS", size=(64, 48))]
        (folder / "a.aedat4").write_bytes(aedat4_writer.recording(streams, [(0, aedat4_writer.events(rows))]))
    else:
        with open_writer(folder / f"a.{ending}", width=64, height=48) as writer:
            writer.write(batch)
    write_video(folder / "a.mp4", FRAMES_US)
    same = open_recordings(tmp_path / "set", SPEC, RuntimePacker())
    assert (same.cameras, same.problems(0, deep=True), same.pairs(0)) == (("rgb", "event"), [], 9)
    ours, expected = same.read(0, np.arange(9)), source.read(1, np.arange(9))
    np.testing.assert_array_equal(ours.rgb, expected.rgb)
    np.testing.assert_array_equal(ours.event, expected.event)


def test_segments_of_a_recording_with_its_video_hold_both_cameras(tmp_path: Path) -> None:
    root = long_one(tmp_path, "start,end,label\n0,0.2,rest\n0.4,0.8,wave\n")
    write_video(root / "day.mp4", [40_000 * k for k in range(25)])
    source = open_recordings(root, SPEC, RuntimePacker())
    assert (source.cameras, check(source).problems) == (("rgb", "event"), ())
    # Seconds count from the first frame, which has no events before it and is left out.
    assert [source.pairs(i) for i in range(2)] == [4, 10]
    rgb = [source.read(i, np.arange(source.pairs(i))).rgb for i in range(2)]
    grey = [[round(float(image.mean()) / 10) for image in images] for images in rgb if images is not None]
    assert grey == [[1, 2, 3, 4], list(range(10, 20))]


def test_a_set_with_damaged_recordings_is_reported_whole_and_packed_not_at_all(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set")
    (root / "wave" / "a.raw").write_text("not events")
    (root / "rest" / "c.mp4").write_bytes(b"not a video")
    write_events(root / "rest" / "d.raw", count=0)
    report = check(open_recordings(root, SPEC, RuntimePacker()))
    assert report.pairs is None
    assert [problem.partition(": ")[0] for problem in report.problems] == ["rest/c", "rest/d", "wave/a"]
    with pytest.raises(DatasetError) as caught:
        build_store(open_recordings(root, SPEC, RuntimePacker()), tmp_path / "out.h5")
    told = sorted(caught.value.problems)
    assert [problem.partition(": ")[0] for problem in told] == ["rest/c", "rest/d", "wave/a"]
    assert "cannot be read as a video" in told[0]
    assert told[1] == "rest/d: no pairs"
    assert "not a recording of any known format" in told[2]
    assert [entry.name for entry in tmp_path.iterdir()] == ["set"]


def test_a_recording_that_is_damaged_further_on_is_told_when_it_is_packed(tmp_path: Path) -> None:
    root = by_class(tmp_path / "set")
    source = open_recordings(root, SPEC, Breaks())
    with pytest.raises(DatasetError) as caught:
        build_store(source, tmp_path / "out.h5")
    assert caught.value.problems == tuple(
        f"{name}: cannot be read: gone (byte 7)" for name in ("rest/c", "wave/a", "wave/b")
    )


def test_event_files_take_parts_and_labels_from_published_lists(tmp_path: Path) -> None:
    root, lists = tmp_path / "Poker_Event" / "Poker_aedat4", tmp_path / "Poker_Event" / "Poker_Event_list"
    for name in ("2/b", "A/a", "A/c", "A/new"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        write_events(root / f"{name}.raw", start_us=0)
    lists.mkdir()
    (lists / "train_label.txt").write_text("A/a 9 0\n2/b 9 1\nA/gone 9 0\n")
    (lists / "test_label.txt").write_text("A/c 9 0\n")
    source = open_recordings(root, SPEC, RuntimePacker())
    assert source.labels == ("A", "2")
    assert source.items == [Item("A/a", 0, "train"), Item("2/b", 1, "train"), Item("A/c", 0, "test")]
    assert source.set_problems() == [
        "A/gone: no event file, but listed in train",
        "A/new: not in the published lists",
    ]
    assert source.event_frames == "packed"


def test_lists_of_another_set_leave_recordings_alone(tmp_path: Path) -> None:
    root = by_class(tmp_path / "mine")
    (tmp_path / "Poker_Event_list").mkdir()
    for part in ("train", "test"):
        (tmp_path / "Poker_Event_list" / f"{part}_label.txt").write_text("A/a 9 0\n")
    assert [item.split for item in open_recordings(root, SPEC).items] == [None, None, None]


def test_the_rate_of_pairs_is_the_videos_or_that_of_the_windows(tmp_path: Path) -> None:
    with_video = open_recordings(by_class(tmp_path / "both"), SPEC, RuntimePacker())
    assert with_video.rate_hz == pytest.approx(25.0)
    assert not with_video.cuts_windows
    alone = open_recordings(long_one(tmp_path / "day", "start,end,label\n0,1,a\n"), SPEC, RuntimePacker())
    assert alone.rate_hz == 25.0
    assert alone.cuts_windows


def test_a_store_keeps_the_rate_unless_pairs_were_left_out(tmp_path: Path) -> None:
    source = open_recordings(by_class(tmp_path / "set"), SPEC, RuntimePacker())
    rates = []
    for name, most_pairs in (("all.h5", None), ("some.h5", 2)):
        build_store(source, tmp_path / name, most_pairs=most_pairs)
        store = ClipStore(tmp_path / name, SPEC)
        rates.append(store.rate_hz)
        store.close()
    assert rates == [pytest.approx(25.0), None]


BY_TIME = SplitConfig(by="time", val=0.1, gap=0.1, test=0.3, piece_s=0.1)


def test_by_time_a_recording_s_pieces_are_train_val_a_gap_and_test(tmp_path: Path) -> None:
    (tmp_path / "wave").mkdir()
    write_events(tmp_path / "wave/a.raw", start_us=0, duration_us=1_000_001, count=10_000)
    index = cut_by_time(index_recordings(tmp_path), BY_TIME, lambda recording: 1_000_000)
    found = [(r.item.name, r.item.split, r.start_us, r.end_us) for r in index.recordings]
    parts = [(k, "train") for k in range(5)] + [(5, "val")] + [(k, "test") for k in range(7, 10)]
    assert found == [(f"wave/a@{k / 10:g}", part, k * 100_000, (k + 1) * 100_000) for k, part in parts]


def test_a_piece_that_lies_in_two_parts_is_in_neither(tmp_path: Path) -> None:
    (tmp_path / "wave").mkdir()
    write_events(tmp_path / "wave/a.raw", start_us=0)
    split = BY_TIME.model_copy(update={"piece_s": 0.3})
    index = cut_by_time(index_recordings(tmp_path), split, lambda recording: 1_000_000)
    assert [(r.item.name, r.item.split) for r in index.recordings] == [("wave/a@0", "train")]


def test_pieces_hold_the_windows_of_their_time(tmp_path: Path) -> None:
    for name in ("box", "mug"):
        write_events(tmp_path / f"{name}.raw", start_us=0, duration_us=1_000_000, count=10_000)
    assert has_recordings(tmp_path)
    split = BY_TIME.model_copy(update={"piece_s": 0.08, "val": 0.2})
    whole = open_recordings(tmp_path, SPEC, RuntimePacker())
    pieces = open_recordings(tmp_path, SPEC, RuntimePacker(), split)
    assert whole.labels == pieces.labels == ("box", "mug")
    assert [item.name for item in whole.items] == ["box", "mug"]
    assert {item.split for item in pieces.items} == {"train", "val", "test"}
    for index, item in enumerate(pieces.items):
        first = round(float(item.name.partition("@")[2]) / 0.04)
        wanted = whole.read(item.label, np.array([first, first + 1])).event
        given = pieces.read(index, np.arange(pieces.pairs(index))).event
        assert given is not None
        np.testing.assert_array_equal(given, wanted)
