"""Index of a set of recordings: the files of each, and their labels.

    SET/wave/first.raw, first.mp4           a class is a folder; an event file, a video beside it
    SET/wave/second.aedat4                  a DAVIS camera's file holds both
    SET/wave/third/recording.json ...       a folder that velora record wrote
    SET/train/wave/first.raw ...            the same, divided into train, val, test
    SET/wave.raw, SET/point.raw             one recording a class, named after it
    SET/wave/first.aedat4, and lists        as PokerEvent is published, train_label.txt and test_label.txt
    SET/day1.raw, day1.mp4, segments.csv    one long recording; a line is start,end,label[,split]
    SET/day1/...                            several of these, each in a folder with its segments.csv

Times in `segments.csv` are seconds from the recording's first pair; labels are names.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

from velora_edge.data.clips.clips import SPLITS, Item
from velora_edge.data.layouts.published import read_listed
from velora_edge.errors import DatasetError, InputError
from velora_edge.events.registry import open_events
from velora_edge.preprocessing.segments import SEGMENTS, read_segments

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from velora_edge.data.clips.clips import Split, SplitConfig
    from velora_edge.data.layouts.published import Listed

EVENTS = (".raw", ".h5", ".hdf5", ".aedat4", ".aedat", ".es", ".dat", ".bin", ".npz", ".npy", ".mat")
VIDEOS = (".mp4", ".mkv", ".mov", ".avi", ".webm")
RECORDED = "recording.json"


@dataclass(frozen=True, slots=True)
class Recording:
    """One labelled stretch of a recording.

    Attributes:
        item: its name, label and part.
        events: the event file.
        video: the video beside it; `events` itself where it holds frames too; a folder that velora record
            wrote; or None.
        start_us: where it begins, from the recording's first pair.
        end_us: where it ends, excluded; None: at the recording's end.
    """

    item: Item
    events: Path
    video: Path | None
    start_us: int = 0
    end_us: int | None = None


@dataclass(frozen=True, slots=True)
class RecordingIndex:
    """A set's recordings.

    Attributes:
        labels: class names, sorted.
        recordings: in the order of files and of time.
        problems: what is wrong with the set, one sentence each.
        warnings: what may be meant otherwise, likewise.
    """

    labels: tuple[str, ...]
    recordings: tuple[Recording, ...]
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Found:
    """A recording whose label is still a name."""

    name: str
    label: str
    split: Split | None
    events: Path
    video: Path | None
    start_us: int = 0
    end_us: int | None = None


def has_recordings(path: Path) -> bool:
    """Whether a folder holds recordings: a `segments.csv`, event files or takes by class, in parts or not."""
    if any(path.glob(SEGMENTS)) or any(path.glob(f"*/{SEGMENTS}")):
        return True
    if len(_event_files(path)) > 1:
        return True
    folders = _folders(path)
    parts = [folder for folder in folders if _as_split(folder.name)]
    return any(map(_holds_takes, [*folders, *(inner for part in parts for inner in _folders(part))]))


def _holds_takes(folder: Path) -> bool:
    return bool(_event_files(folder)) or any(map(_event_files, _folders(folder)))


def index_recordings(path: Path) -> RecordingIndex:
    """The recordings in a folder, or those of one `segments.csv`.

    Raises:
        DatasetError: if there are none.
    """
    problems: list[str] = []
    root = path.parent if path.is_file() else path
    lists = [path] if path.is_file() else sorted([*path.glob(SEGMENTS), *path.glob(f"*/{SEGMENTS}")])
    warnings: list[str] = []
    if lists:
        found = [item for file in lists for item in _segments(file, root, problems)]
        warnings += [*_overlaps(found), *(() if path.is_file() else _passed_over(path))]
    else:
        found = list(_by_class(path, problems))
    if not found:
        raise DatasetError(
            problems or ["no recordings: expected <label>/<name>.raw (or .h5, .aedat4), or a segments.csv"],
            path=path,
            remedy="see docs/guides/training.md for the layouts",
        )
    listed = None if lists else read_listed(root)
    if listed is not None:
        return _as_listed(found, listed, problems)
    labels = tuple(sorted({item.label for item in found}))
    recordings = tuple(
        Recording(Item(f.name, labels.index(f.label), f.split), f.events, f.video, f.start_us, f.end_us)
        for f in found
    )
    return RecordingIndex(labels, recordings, tuple(problems), tuple(warnings))


def _as_listed(found: list[_Found], listed: Listed, problems: list[str]) -> RecordingIndex:
    """Recordings with the labels and parts of published lists; what only one of the two has is told."""
    by_name = {recording.name: recording for recording in found}
    told = [f"{name}: no event file, but listed in {listed.items[name].split}" for name in listed.items
            if name not in by_name]  # fmt: skip
    told += [f"{name}: not in the published lists" for name in by_name if name not in listed.items]
    recordings = tuple(
        Recording(item, by_name[name].events, by_name[name].video)
        for name, item in listed.items.items()
        if name in by_name
    )
    return RecordingIndex(listed.labels, recordings, (*problems, *listed.problems, *told))


def _by_class(path: Path, problems: list[str]) -> Iterator[_Found]:
    folders = _folders(path)
    if not folders:
        yield from _file_a_class(path)
        return
    parts = {folder: _as_split(folder.name) for folder in folders}
    if folders and all(parts.values()):
        classes = [(sub, parts[folder]) for folder in folders for sub in _folders(folder)]
    else:
        classes = [(folder, None) for folder in folders]
    for folder, split in classes:
        files = _event_files(folder)
        videos = {video.stem: video for video in _videos(folder)}
        for events in files:
            name = events.relative_to(path).with_suffix("").as_posix()
            yield _Found(
                name, folder.name, split, events, videos.pop(events.stem, None) or _frames_in(events)
            )
        taken = [sub for sub in _folders(folder) if (sub / RECORDED).is_file()]
        for sub in taken:
            found = _event_files(sub)
            if len(found) != 1:
                problems.append(f"{sub.relative_to(path)}: expected one event file, found {len(found)}")
                continue
            video = sub if _videos(sub) else None
            yield _Found(sub.relative_to(path).as_posix(), folder.name, split, found[0], video)
        problems += [f"{v.relative_to(path)}: no event file of the same name" for v in videos.values()]
        if not files and not taken:
            problems.append(f"{folder.relative_to(path)}: no event files")


def _file_a_class(path: Path) -> Iterator[_Found]:
    """Recordings without folders: each is its class's only one."""
    videos = {video.stem: video for video in _videos(path)}
    for events in _event_files(path):
        video = videos.get(events.stem) or _frames_in(events)
        yield _Found(events.stem, events.stem, None, events, video)


def cut_by_time(
    index: RecordingIndex, split: SplitConfig, length_us: Callable[[Recording], int]
) -> RecordingIndex:
    """Pieces of the recordings, `split.piece_s` long, divided by their time: train, val, a gap, test.

    What is divided already, a recording's published part or a segment, stays as it is; a rest that is shorter
    than a piece is left out, and so are pieces that lie in the gap or in two parts.

    Args:
        index: the recordings.
        split: how they are divided.
        length_us: gives a recording's length, from its first pair on.
    """
    recordings: list[Recording] = []
    for recording in index.recordings:
        if recording.item.split is not None or recording.end_us is not None:
            recordings.append(recording)
        else:
            recordings += _pieces(recording, split, length_us(recording))
    return RecordingIndex(index.labels, tuple(recordings), index.problems)


def _pieces(recording: Recording, split: SplitConfig, length_us: int) -> Iterator[Recording]:
    piece_us, item = round(split.piece_s * 1e6), recording.item
    test_us = round((1 - split.test) * length_us)
    val_end_us = round((1 - split.test - split.gap) * length_us)
    val_us = round((1 - split.test - split.gap - split.val) * length_us)
    parts: dict[Split, tuple[int, int]] = {
        "train": (0, val_us), "val": (val_us, val_end_us), "test": (test_us, length_us)
    }  # fmt: skip
    for start_us in range(0, length_us - piece_us + 1, piece_us):
        end_us = start_us + piece_us
        for part, (from_us, to_us) in parts.items():
            if from_us <= start_us and end_us <= to_us:
                piece = Item(f"{item.name}@{start_us / 1e6:g}", item.label, part)
                yield Recording(piece, recording.events, recording.video, start_us, end_us)


def find_recording(folder: Path) -> tuple[Path, Path | None]:
    """The one event file of a folder, and its video as `Recording.video` has it.

    Raises:
        DatasetError: if there is not one event file.
    """
    files = _event_files(folder)
    if len(files) != 1:
        raise DatasetError(
            [f"expected one event file, found {len(files)}"],
            path=folder,
            remedy=f"give each recording a folder of its own, with its {SEGMENTS}",
        )
    videos = _videos(folder)
    video = videos[0] if videos else _frames_in(files[0])
    return files[0], folder if videos and (folder / RECORDED).is_file() else video


def _segments(file: Path, root: Path, problems: list[str]) -> Iterator[_Found]:
    shown, folder = file.relative_to(root), file.parent
    files = _event_files(folder)
    if len(files) != 1:
        problems.append(f"{shown}: expected one event file beside it, found {len(files)}")
        return
    events, video = find_recording(folder)
    read = read_segments(file, str(shown))
    problems += read.problems
    base = events.relative_to(root).with_suffix("").as_posix()
    for one in read.segments:
        name = f"{base}@{one.start_us / 1e6:g}"
        yield _Found(name, one.label, _as_split(one.split), events, video, one.start_us, one.end_us)


def _overlaps(found: list[_Found]) -> Iterator[str]:
    """Segments of one recording that share time and have different labels; `found` is in order of time."""
    for before, after in itertools.pairwise(found):
        ends_us = before.end_us if before.events == after.events else None
        if ends_us is not None and after.start_us < ends_us and before.label != after.label:
            yield (
                f"{after.name}: {after.label} begins {(ends_us - after.start_us) / 1e6:g} s before "
                f"{before.label} ends ({before.name})"
            )


def _passed_over(path: Path) -> Iterator[str]:
    """Folders of event files that are not looked at, as the set has a `segments.csv`."""
    for folder in _folders(path):
        inner = [folder, *_folders(folder)]
        files = [file for one in inner if not (one / SEGMENTS).is_file() for file in _event_files(one)]
        if files:
            yield (
                f"{folder.name}: {len(files)} event files are not taken: where there is a {SEGMENTS}, "
                "a folder needs one too, or a set of its own"
            )


def _as_split(name: str) -> Split | None:
    lower = name.lower()
    return next((split for split in SPLITS if split == lower), None)


def _folders(path: Path) -> list[Path]:
    return sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _videos(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in VIDEOS)


def _frames_in(events: Path) -> Path | None:
    """The event file itself, where its camera took frames as well."""
    if events.suffix.lower() != ".aedat4":
        return None
    try:
        with open_events(events) as reader:
            return events if getattr(reader, "has_frames", False) else None
    except (InputError, OSError):
        return None  # the file's own problem is told when the recording is looked at


def _event_files(folder: Path) -> list[Path]:
    return sorted(entry for entry in folder.iterdir() if entry.suffix.lower() in EVENTS)
