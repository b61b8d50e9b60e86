"""Layouts in which PokerEvent and HARDVS are published: folders of frames, and lists."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from velora_edge.data.clips.clips import SPLITS, Item
from velora_edge.data.layouts.frames import FrameSet
from velora_edge.errors import DatasetError, printable
from velora_edge.limits import parse_int, read_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator

    from velora_edge.data.clips.clips import ClipSpec, Modality, Split

SUFFIXES: dict[str, Modality] = {"_aps": "rgb", "_dvs": "event"}

_LARGEST_COUNT = 1 << 31


def open_pokerevent(path: Path, spec: ClipSpec) -> FrameSet:
    """PokerEvent as frames: `<class>/<seq>/<seq>_aps/*.png` and `<seq>_dvs/*.png`.

    `train_label.txt`, `test_label.txt` (and `val_label.txt`) are read where they are there, in the folder or
    in one directly within it; a line is `<class>/<seq> <frames> <label>`.
    """
    return _open("pokerevent", path, path, spec)


def open_hardvs(path: Path, spec: ClipSpec) -> FrameSet:
    """HARDVS and HARDVS 2.0: `rawframes/action_001/<seq>/<seq>_dvs/*.png`; 2.0 has `<seq>_aps` beside it.

    Lists as for PokerEvent, in `HarDvs300_list/`. `path` is the folder that holds `rawframes`, or itself.
    """
    frames = path / "rawframes" if (path / "rawframes").is_dir() else path
    return _open("hardvs", path, frames, spec)


def has_frames(path: Path, depth: int = 4) -> bool:
    """Whether a folder named `..._aps` or `..._dvs` lies within `depth` levels; stops at the first one."""
    if depth == 0 or not path.is_dir():
        return False
    folders = [entry for entry in os.scandir(path) if entry.is_dir()]
    if any(entry.name.endswith(tuple(SUFFIXES)) for entry in folders):
        return True
    return any(has_frames(Path(entry.path), depth - 1) for entry in folders[:8])


def _open(kind: str, path: Path, frames: Path, spec: ClipSpec) -> FrameSet:
    lists = _find_lists(path)
    if not lists:
        return _from_folders(kind, path, frames, spec)
    problems: list[str] = []
    rows = (row for split, file in lists.items() for row in _read_list(file, split, path, problems))
    items, sequences, counts = [], [], []
    names: dict[int, str] = {}
    seen: dict[str, Split] = {}
    for where, name, listed, label, split in rows:
        folders = _cameras(frames / name)
        if not folders:
            problems.append(f"{where}: no recording at {(frames / name).relative_to(path)}")
            continue
        if name in seen:
            problems.append(f"{where}: {name} is listed twice, in {seen[name]} and {split}")
            continue
        parent = PurePosixPath(name).parent.name or name
        if names.setdefault(label, parent) != parent:
            problems.append(f"{where}: label {label} is {parent} here and {names[label]} above")
        seen[name] = split
        items.append(Item(name, label, split))
        sequences.append(folders)
        counts.append(listed)
    labels = [names.get(label, f"class_{label}") for label in range(max(names, default=-1) + 1)]
    if not items:
        raise DatasetError(problems or ["the lists name no recordings"], path=path, remedy="check the lists")
    return FrameSet(kind, path, spec, labels, items, sequences, listed=counts, problems=problems)


def _from_folders(kind: str, path: Path, frames: Path, spec: ClipSpec) -> FrameSet:
    """Without lists: a class is a folder, its recordings are the folders in it."""
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
        raise DatasetError(
            ["expected <class>/<recording>/<recording>_dvs folders of images, found none"],
            path=path,
            remedy="give the folder that holds the classes",
        )
    return FrameSet(kind, path, spec, labels, items, sequences)


def _cameras(folder: Path) -> dict[Modality, Path]:
    """The folders of images in a recording's folder, by camera."""
    if not folder.is_dir():
        return {}
    found: dict[Modality, Path] = {}
    for suffix, camera in SUFFIXES.items():
        match = sorted(sub for sub in folder.iterdir() if sub.is_dir() and sub.name.endswith(suffix))
        if match:
            found[camera] = match[0]
    return found


def _find_lists(path: Path) -> dict[Split, Path]:
    """The published lists by split: in the folder, in one directly within it, or beside `rawframes`."""
    places = [path, *sorted(p for p in path.iterdir() if p.is_dir() and "list" in p.name.lower())]
    if path.name == "rawframes":
        places += [path.parent, *sorted(p for p in path.parent.iterdir() if "list" in p.name.lower())]
    found: dict[Split, Path] = {}
    for place in places:
        for split in SPLITS:
            file = place / f"{split}_label.txt"
            if split not in found and file.is_file():
                found[split] = file
    return found


def _read_list(
    file: Path, split: Split, root: Path, problems: list[str]
) -> Iterator[tuple[str, str, int, int, Split]]:
    """Rows of a list: place for messages, recording, number of frames, label, split; bad rows are noted."""
    shown = file.relative_to(root) if file.is_relative_to(root) else file.name
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
