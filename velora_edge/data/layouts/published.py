"""Layouts in which PokerEvent and HARDVS are published: folders of frames, and lists."""

from __future__ import annotations

import os
from dataclasses import dataclass
from glob import escape
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from velora_edge.config import make_distinct, published_class_names
from velora_edge.data.clips.clips import SPLITS, Item
from velora_edge.data.layouts.frames import FrameSet
from velora_edge.errors import DatasetError, printable
from velora_edge.limits import parse_int, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_edge.config import PublishedSet
    from velora_edge.data.clips.clips import ClipSpec, Modality, Split

SUFFIXES: dict[str, Modality] = {"_aps": "rgb", "_dvs": "event"}
NEEDED: tuple[Split, Split] = ("train", "test")
"""The lists that a published set must come with; one of validation is read where it is there."""

_Row = tuple[str, str, int, int, "Split"]

_LARGEST_COUNT = 1 << 31


def open_pokerevent(path: Path, spec: ClipSpec) -> FrameSet:
    """PokerEvent as frames: `Poker_rgb_event/<class>/<seq>/<seq>_aps/*.png` and `<seq>_dvs/*.png`.

    Its lists, `train_label.txt`, `test_label.txt` (and `val_label.txt`), lie in the sibling folder
    `Poker_Event_list`; a line is `<class>/<seq> <frames> <label>`. `path` is the folder that holds both, or
    either of them; the lists may lie beside the classes or among them too.

    Raises:
        DatasetError: if there are no such frames, or no lists for them: a part is never drawn at random.
    """
    return _open("pokerevent", path, spec)


def open_hardvs(path: Path, spec: ClipSpec) -> FrameSet:
    """HARDVS and HARDVS 2.0: `rawframes/action_001/<seq>/<seq>_dvs/*.png`; 2.0 has `<seq>_aps` beside it.

    Lists as for PokerEvent, in `HarDvs300_list/`. `path` is the folder that holds both, or either of them.

    Raises:
        DatasetError: as `open_pokerevent`.
    """
    return _open("hardvs", path, spec)


def open_frames(path: Path, spec: ClipSpec) -> FrameSet:
    """Frames of a user's own in folders as PokerEvent has them, without lists.

    A class is a folder, its recordings are the folders in it. Parts are drawn as `data.split` says.

    Raises:
        DatasetError: if there are no such frames.
    """
    frames = find_frames(path) or path
    labels: list[str] = []
    items, sequences = [], []
    for folder in sorted(entry for entry in frames.iterdir() if entry.is_dir()):
        found = [(sub, cameras) for sub in sorted(folder.iterdir()) if (cameras := _cameras(sub))]
        for sub, cameras in found:
            items.append(Item(sub.relative_to(frames).as_posix(), len(labels)))
            sequences.append(cameras)
        if found:
            labels.append(folder.name)
    if not items:
        raise _no_frames(path)
    return FrameSet("frames", path, spec, labels, items, sequences)


def detect_published(path: Path) -> PublishedSet | None:
    """Which published set a folder is, or holds, or holds the lists of."""
    frames = find_frames(path)
    if frames is None:
        return None
    is_hardvs = frames.name == "rawframes" or any(frames.glob("action_[0-9]*"))
    return "hardvs" if is_hardvs else "pokerevent"


def find_frames(path: Path) -> Path | None:
    """The folder that holds the classes of frames: `path`, one within it, or one beside its lists."""
    near = [path, *(_folders(_absolute(path).parent) if _holds_lists(path) else [])]
    for root in near:
        images = _find_images(root, 4)
        if images is not None:
            between = images.relative_to(root).parts  # ..., class, recording, folder of images
            return root.joinpath(*between[:-3]) if len(between) >= 3 else None
    return None


def _find_images(folder: Path, depth: int) -> Path | None:
    """The first folder named `..._aps` or `..._dvs` within `depth` levels, looking at a few of each level."""
    if depth == 0 or not folder.is_dir():
        return None
    folders = _folders(folder)
    found = next((sub for sub in folders if sub.name.endswith(tuple(SUFFIXES))), None)
    return found or next(filter(None, (_find_images(sub, depth - 1) for sub in folders[:8])), None)


def _open(kind: PublishedSet, path: Path, spec: ClipSpec) -> FrameSet:
    frames = find_frames(path)
    if frames is None:
        raise _no_frames(path)
    root = path if frames.is_relative_to(path) else frames
    problems: list[str] = []
    lists = find_lists(path, frames)
    rows = (row for split, file in lists.items() for row in read_list(file, split, root, problems))
    names: dict[int, str] = {}
    items, sequences, counts = [], [], []
    seen: dict[str, Split] = {}
    for where, name, listed, label, split in rows:
        parent = PurePosixPath(name).parent.name or name
        is_first = names.setdefault(label, parent) == parent
        folders = _cameras(frames / name)
        if not folders:
            problems.append(f"{where}: no recording at {_shown(frames / name, root)}")
            continue
        if name in seen:
            problems.append(f"{where}: {name} is listed twice, in {seen[name]} and {split}")
            continue
        if not is_first:
            problems.append(f"{where}: label {label} is {parent} here and {names[label]} above")
        seen[name] = split
        items.append(Item(name, label, split))
        sequences.append(folders)
        counts.append(listed)
    if not items:
        raise DatasetError(problems or ["the lists name no recordings"], path=path, remedy="check the lists")
    labels = name_classes(kind, names)
    return FrameSet(kind, root, spec, labels, items, sequences, listed=counts, problems=problems)


def name_classes(kind: PublishedSet, folders: dict[int, str]) -> tuple[str, ...]:
    """Class names by label: the published ones where all classes are there, else those of the folders."""
    names = [folders.get(label, f"class_{label}") for label in range(max(folders, default=-1) + 1)]
    published = published_class_names(kind)
    return published if len(names) == len(published) else make_distinct(names)


@dataclass(frozen=True, slots=True)
class Listed:
    """What the published lists say of recordings that are event files.

    Attributes:
        labels: class names.
        items: by name, `<class>/<recording>`.
        problems: what is wrong with the lists.
    """

    labels: tuple[str, ...]
    items: dict[str, Item]
    problems: list[str]


def read_listed(path: Path) -> Listed | None:
    """The lists of a folder of event files by class, such as PokerEvent's `.aedat4`; None where it has none.

    They are looked for as those of frames are, and must name files of this folder: lists of another set do
    not count.
    """
    try:
        lists = find_lists(path, path)
    except DatasetError:
        return None
    if not _lists_fit(lists[NEEDED[0]].parent, path):
        return None
    problems: list[str] = []
    names: dict[int, str] = {}
    items: dict[str, Item] = {}
    for split, file in lists.items():
        for where, name, _, label, _ in read_list(file, split, path, problems):
            names.setdefault(label, PurePosixPath(name).parent.name or name)
            if name in items:
                problems.append(f"{where}: {name} is listed twice, in {items[name].split} and {split}")
            items.setdefault(name, Item(name, label, split))
    kind: PublishedSet = "hardvs" if any(path.glob("action_[0-9]*")) else "pokerevent"
    return Listed(name_classes(kind, names), items, problems)


def find_lists(path: Path, frames: Path) -> dict[Split, Path]:
    """The published lists by split, all out of one folder.

    They are looked for in `frames`, in `path` and in the folder above `frames`, and in folders there that
    are called lists. Where several folders have lists, those that name recordings of this set are taken.

    Args:
        path: as the user gave it.
        frames: the folder that holds the classes.

    Raises:
        DatasetError: if a list is missing; says where it was looked for.
    """
    homes = dict.fromkeys([_absolute(frames), _absolute(path), _absolute(frames).parent])
    lists = [folder for home in homes for folder in _folders(home) if "list" in folder.name.lower()]
    places = list(dict.fromkeys([*homes, *lists]))
    complete = [place for place in places if _holds_lists(place)]
    if not complete:
        wanted = " and ".join(f"{split}_label.txt" for split in NEEDED)
        raise DatasetError(
            [f"no lists of its parts: expected {wanted} in one of {', '.join(map(str, places))}"],
            path=path,
            remedy="copy the published lists there, or take the folders as a set of your own, divided by "
            "data.split: kind frames",
        )
    place = next((place for place in complete if _lists_fit(place, frames)), complete[0])
    return {split: file for split in SPLITS if (file := place / f"{split}_label.txt").is_file()}


def read_list(file: Path, split: Split, root: Path, problems: list[str]) -> Iterator[_Row]:
    """Rows of a list: place for messages, recording, number of frames, label, split; bad rows are noted."""
    shown = _shown(file, root)
    try:
        lines = read_bytes(file).decode("utf-8", "replace").splitlines()
    except (OSError, ValueError) as error:
        problems.append(f"{shown}: cannot be read: {error}")
        return
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        where = f"{shown}, line {number}"
        parts = line.rsplit(maxsplit=2)
        frames, label = (parse_int(part, _LARGEST_COUNT) for part in (parts[1:] if len(parts) == 3 else "  "))
        if frames is None or label is None or frames < 0 or label < 0:
            said = printable(line.strip(), 100)
            problems.append(f"{where}: expected '<class>/<recording> <frames> <label>', got {said!r}")
            continue
        name = PurePosixPath(parts[0].replace("\\", "/").strip())
        if name.is_absolute() or ".." in name.parts:
            problems.append(f"{where}: the path {parts[0]} leaves the data set's folder")
            continue
        inner = name.relative_to("rawframes") if name.parts[:1] == ("rawframes",) else name
        yield where, inner.as_posix(), frames, label, split


def _holds_lists(place: Path) -> bool:
    return all((place / f"{split}_label.txt").is_file() for split in NEEDED)


def _lists_fit(place: Path, frames: Path) -> bool:
    """Whether one of a list's first recordings is there, as a folder of frames or as an event file."""
    rows = read_list(place / f"{NEEDED[0]}_label.txt", NEEDED[0], place, [])
    names = [name for (_, name, *_), _ in zip(rows, range(20), strict=False)]
    return any((frames / name).is_dir() or any(frames.glob(f"{escape(name)}.*")) for name in names)


def _no_frames(path: Path) -> DatasetError:
    return DatasetError(
        ["expected <class>/<recording>/<recording>_dvs folders of images, found none"],
        path=path,
        remedy="give the folder that holds the classes, or the one above it",
    )


def _cameras(folder: Path) -> dict[Modality, Path]:
    """The folders of images in a recording's folder, by camera."""
    if not folder.is_dir():
        return {}
    found: dict[Modality, Path] = {}
    for suffix, camera in SUFFIXES.items():
        match = [sub for sub in _folders(folder) if sub.name.endswith(suffix)]
        if match:
            found[camera] = match[0]
    return found


def _folders(path: Path) -> list[Path]:
    """The folders in a folder, sorted; none where it cannot be read."""
    try:
        return sorted(path / entry.name for entry in os.scandir(path) if entry.is_dir())
    except OSError:
        return []


def _absolute(path: Path) -> Path:
    """Links stay as they are: what lies beside a link counts."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def _shown(path: Path, root: Path) -> str:
    """A path as seen from a set's folder; from the folder above it for what lies beside it."""
    place, home = _absolute(path), _absolute(root)
    if place.is_relative_to(home):
        return place.relative_to(home).as_posix()
    return place.relative_to(home.parent).as_posix() if place.is_relative_to(home.parent) else str(place)
