"""The picture of both cameras side by side."""

from __future__ import annotations

import numpy as np
import pytest
from velora_runtime.sinks.video import PANEL_HEIGHT, STRIP_HEIGHT, Overlay

DARK = [24, 26, 30]


def solid(hw: tuple[int, int], colour: tuple[int, int, int]) -> np.ndarray:
    return np.full((*hw, 3), colour, np.uint8)


@pytest.mark.parametrize(
    ("rgb_hw", "event_hw", "width"),
    [
        ((48, 64), (32, 32), 480 + 360),
        ((720, 1280), None, 640),
        (None, (224, 224), 360),
        ((480, 641), None, 480),
    ],
)
def test_canvas_has_a_panel_for_each_camera_and_even_sides(
    rgb_hw: tuple[int, int] | None, event_hw: tuple[int, int] | None, width: int
) -> None:
    canvas = Overlay(rgb_hw, event_hw).canvas
    assert canvas.shape == (PANEL_HEIGHT + STRIP_HEIGHT, width, 3)
    assert (canvas.shape[0] % 2, canvas.shape[1] % 2) == (0, 0)


def test_each_picture_fills_its_panel() -> None:
    overlay = Overlay((48, 64), (32, 32))
    canvas = overlay.draw(solid((48, 64), (200, 10, 10)), solid((32, 32), (10, 10, 200)), "", None, "")
    assert np.unique(canvas[:PANEL_HEIGHT, :480].reshape(-1, 3), axis=0).tolist() == [[200, 10, 10]]
    assert np.unique(canvas[:PANEL_HEIGHT, 480:].reshape(-1, 3), axis=0).tolist() == [[10, 10, 200]]


def test_event_pixels_stay_sharp() -> None:
    event = np.zeros((4, 4, 3), np.uint8)
    event[::2, ::2] = 255
    canvas = Overlay(None, (4, 4)).draw(None, event, "", None, "")
    assert np.unique(canvas[:PANEL_HEIGHT]).tolist() == [0, 255]


def test_what_is_absent_leaves_its_panel_dark() -> None:
    overlay = Overlay((48, 64), (32, 32))
    overlay.draw(solid((48, 64), (200, 10, 10)), solid((32, 32), (10, 10, 200)), "", None, "")
    canvas = overlay.draw(None, None, "", None, "")
    assert np.unique(canvas.reshape(-1, 3), axis=0).tolist() == [DARK]


def test_a_picture_of_another_shape_is_shown_whole() -> None:
    canvas = Overlay((48, 64), None).draw(solid((64, 48), (9, 200, 9)), None, "", None, "")
    row = (canvas[PANEL_HEIGHT // 2] == (9, 200, 9)).all(axis=1)
    assert (int(row.sum()), int(row.argmax())) == (270, 105)


@pytest.mark.parametrize(("score", "length"), [(0.0, 0), (0.5, 228), (1.0, 456), (7.0, 456)])
def test_the_bar_is_as_long_as_the_score(score: float, length: int) -> None:
    canvas = Overlay((48, 64), None).draw(None, None, "wave", score, "")
    assert int((canvas[PANEL_HEIGHT + 42] == (64, 160, 255)).all(axis=1).sum()) == length


def test_label_and_details_are_written_below() -> None:
    overlay = Overlay((48, 64), None)
    bare = overlay.draw(None, None, "", None, "").copy()
    labelled = overlay.draw(None, None, "wave", None, "").copy()
    detailed = overlay.draw(None, None, "", None, "3 events").copy()
    changed = [np.flatnonzero((picture != bare).any(axis=(1, 2))) for picture in (labelled, detailed)]
    assert all(rows.size and rows.min() > PANEL_HEIGHT for rows in changed)
    assert changed[0].max() < changed[1].min()
