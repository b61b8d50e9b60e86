"""The count of active patches, on a recording made by hand."""

from __future__ import annotations

import importlib
from collections import defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from velora_edge import open_events
from velora_edge.datatypes import EventBatch
from velora_edge.events.writers import open_writer

if TYPE_CHECKING:
    from pathlib import Path
    from types import ModuleType


@pytest.fixture
def patches() -> ModuleType:
    return importlib.import_module("active_patches")


def write(path: Path, events: list[tuple[int, int, int]]) -> Path:
    """An EVT3 file of a sensor of 336x224, whose middle is the model's image; all events are ON."""
    t_us, x, y = (np.array(column) for column in zip(*events, strict=True))
    batch = EventBatch(t_us, x.astype(np.uint16), y.astype(np.uint16), np.ones(len(t_us), np.uint8))
    with open_writer(path, "EVT3", width=336, height=224) as writer:
        writer.write(batch)
    return path


def test_an_event_counts_for_the_patch_of_its_pixel_and_whole_windows_count(
    patches: ModuleType, tmp_path: Path
) -> None:
    first = [(0, 56, 0), (1, 56, 0), (2, 71, 15), (3, 72, 15), (4, 55, 0)]  # the last beside the image
    second = [(33_333, 279, 223)]
    cut_off = [(66_666, 100, 100)]
    shares: Any = defaultdict(list)
    with open_events(write(tmp_path / "hand.raw", first + second + cut_off)) as reader:
        patches.add_shares(shares, reader, ())
    one, each = [2 / 196, 1 / 196], [2 / 256, 1 / 256]
    assert shares == {
        (16, "1+ events"): one,
        (16, "3+ events"): [1 / 196, 0],
        (16, "polarity image"): one,
        (16, "voxel grid"): one,
        (14, "1+ events"): each,
        (14, "3+ events"): [0, 0],
        (14, "polarity image"): each,
        (14, "voxel grid"): each,
    }


def test_a_recording_shorter_than_a_window_is_one(patches: ModuleType, tmp_path: Path) -> None:
    shares: Any = defaultdict(list)
    with open_events(write(tmp_path / "short.raw", [(5, 56, 0)])) as reader:
        patches.add_shares(shares, reader, ())
    assert shares[16, "1+ events"] == [1 / 196]


def test_a_lone_event_is_not_active_behind_the_filter(patches: ModuleType, tmp_path: Path) -> None:
    shares: Any = defaultdict(list)
    with open_events(write(tmp_path / "lone.raw", [(5, 56, 0), (6, 57, 0), (7, 200, 100)])) as reader:
        patches.add_shares(shares, reader, ("background",))
    assert shares[16, "1+ events"] == [1 / 196]
