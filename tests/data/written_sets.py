"""Writes small published-looking data sets for tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

if TYPE_CHECKING:
    from pathlib import Path


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
