"""Writes small published-looking data sets for tests."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np

import velora_edge


def write_image(path: Path, value: int, hw: tuple[int, int] = (6, 8)) -> None:
    """A PNG of one RGB colour (value, 0, 10)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    bgr = np.full((*hw, 3), (10, 0, value), np.uint8)
    assert cv2.imwrite(str(path), bgr)


def write_sequence(
    folder: Path, frames: int, *, rgb: bool = True, event: bool = True, step: int = 1, first: int = 0
) -> None:
    """One recording: pictures of red = number, event frames of red = 100 + number."""
    for i in range(frames):
        if rgb:
            write_image(folder / f"{folder.name}_aps" / f"frame{first + i * step:08}.png", i)
        if event:
            write_image(folder / f"{folder.name}_dvs" / f"{first + i * step:08}.png", 100 + i)


def write_poker(root: Path, *, lists: bool = True) -> Path:
    """Two classes with two recordings each, one of each in every list."""
    for label, name in enumerate(("clubs", "hearts")):
        for seq in ("a", "b"):
            write_sequence(root / name / f"{name}_{seq}", 4 + label)
    if lists:
        (root / "train_label.txt").write_text("clubs/clubs_a 4 0\nhearts/hearts_a 5 1\n")
        (root / "test_label.txt").write_text("clubs/clubs_b 4 0\nhearts/hearts_b 5 1\n")
    return root


def write_published_poker(
    home: Path, classes: int = 114, hw: tuple[int, int] = (6, 8), copies: int = 1
) -> Path:
    """PokerEvent as its publishers lay it out, each class with `copies` to train on and one to test.

    Frames are noise by a seed that follows from the label. Returns `Poker_Event`, which holds
    `Poker_rgb_event` and `Poker_Event_list`; classes of one name share a folder.
    """
    file = Path(velora_edge.__file__).parent / "assets" / "pokerevent_classes.txt"
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for label, name in enumerate(file.read_text().splitlines()[:classes]):
        for split, suffix in [("test", ""), *(("train", "b" * k) for k in range(copies))]:
            folder = home / "Poker_Event" / "Poker_rgb_event" / name / f"{split}_{label:03}{suffix}"
            _write_noise(folder, 2, label, hw)
            rows[split].append(f"{name}/{folder.name} 2 {label}")
    lists = home / "Poker_Event" / "Poker_Event_list"
    lists.mkdir()
    for split, lines in rows.items():
        (lists / f"{split}_label.txt").write_text("".join(f"{line}\n" for line in lines))
    return home / "Poker_Event"


def write_published_hardvs(home: Path, classes: int = 4, copies: int = 1) -> Path:
    """HARDVS as its publishers lay it out; returns the folder of `rawframes` and `HarDvs300_list`."""
    rows: dict[str, list[str]] = {"train": [], "test": []}
    for label in range(classes):
        for split, second in [("test", 30), *(("train", k) for k in range(copies))]:
            name = f"dvSave-2021_10_{label + 1:02}_10_15_{second:02}"
            folder = home / "HARDVS" / "rawframes" / f"action_{label + 1:03}" / name
            write_sequence(folder, 3, rgb=False, step=5)
            rows[split].append(f"action_{label + 1:03}/{name} 3 {label}")
    lists = home / "HARDVS" / "HarDvs300_list"
    lists.mkdir()
    for split, lines in rows.items():
        (lists / f"{split}_label.txt").write_text("".join(f"{line}\n" for line in lines))
    return home / "HARDVS"


def _write_noise(folder: Path, frames: int, seed: int, hw: tuple[int, int]) -> None:
    rng = np.random.default_rng(seed)
    for suffix, template in (("_aps", "frame{:08}.png"), ("_dvs", "{:08}.png")):
        images = folder / f"{folder.name}{suffix}"
        images.mkdir(parents=True)
        for i in range(frames):
            assert cv2.imwrite(str(images / template.format(i)), rng.integers(0, 256, (*hw, 3), np.uint8))
