from __future__ import annotations

import numpy as np
import pytest

from velora_edge.datatypes import EventBatch
from velora_edge.errors import InputError
from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.geometry.calibration import Lens, View, ViewedEvents
from velora_edge.events.kernels._frame_kernels import FullMap, SeparableMap

# The sensor of 3x2 pixels, each called by its number.
NUMBERS = np.arange(6).reshape(2, 3)
NOWHERE = -1


def picture_of(view: View) -> list[list[int]]:
    """The view at its own size, with the numbers of the pixels that fall there."""
    image = np.full(view.view_hw, NOWHERE)
    table = view.registration(view.view_hw, "stretch").as_table()
    image.ravel()[table[table >= 0]] = NUMBERS[table >= 0]
    return image.tolist()


@pytest.mark.parametrize("mode", ["crop", "letterbox", "stretch"])
@pytest.mark.parametrize("hw", [(2, 3), (7, 30), (30, 7), (20, 20)])
def test_the_sensors_own_picture_is_laid_on_the_image_as_a_fit_is(hw, mode):
    ours = View.of_sensor(hw).registration((12, 9), mode)
    assert isinstance(ours.table, SeparableMap)
    np.testing.assert_array_equal(ours.as_table(), RegistrationMap.from_fit(hw, (12, 9), mode).as_table())


@pytest.mark.parametrize(
    ("how", "picture"),
    [
        ("horizontal", [[2, 1, 0], [5, 4, 3]]),
        ("vertical", [[3, 4, 5], [0, 1, 2]]),
        ("both", [[5, 4, 3], [2, 1, 0]]),
    ],
)
def test_flips(how, picture):
    assert picture_of(View.of_sensor((2, 3)).flipped(how)) == picture


@pytest.mark.parametrize(
    ("degrees", "picture"),
    [
        (0, [[0, 1, 2], [3, 4, 5]]),
        (90, [[3, 0], [4, 1], [5, 2]]),
        (180, [[5, 4, 3], [2, 1, 0]]),
        (270, [[2, 5], [1, 4], [0, 3]]),
    ],
)
def test_rotations_are_clockwise_and_stay_separable(degrees, picture):
    view = View.of_sensor((2, 3)).rotated(degrees)
    assert picture_of(view) == picture
    assert isinstance(view.registration((4, 4), "crop").table, SeparableMap)


def test_a_flip_comes_before_the_rotation_that_follows_it():
    view = View.of_sensor((2, 3)).flipped("horizontal").rotated(90)
    assert picture_of(view) == [[5, 2], [4, 1], [3, 0]]


def test_another_rotation_is_refused():
    with pytest.raises(ValueError, match="0, 90, 180 or 270 degrees, got 45"):
        View.of_sensor((2, 3)).rotated(45)


def test_a_homography_moves_scales_and_drops():
    # One pixel to the right, in a picture of 3x2: the last column falls outside.
    moved = np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]])
    assert picture_of(View.from_homography(moved, (2, 3), (2, 3))) == [[-1, 0, 1], [-1, 3, 4]]
    doubled = np.array([[2.0, 0, 0.5], [0, 2, 0.5], [0, 0, 1]])
    view = View.from_homography(doubled, (2, 3), (4, 6))
    assert view.is_rgb
    expected = RegistrationMap.from_fit((2, 3), (4, 6), "stretch").as_table()
    np.testing.assert_array_equal(view.registration((4, 6), "stretch").as_table(), expected)


def test_pixels_behind_a_homographys_horizon_fall_nowhere():
    # w = 1 - x: the horizon is the second column.
    tilted = np.array([[1.0, 0, 0], [0, 1, 0], [-1, 0, 1]])
    assert picture_of(View.from_homography(tilted, (2, 3), (2, 3))) == [[0, -1, -1], [3, -1, -1]]


def test_two_equal_cameras_that_look_the_same_way_see_the_same():
    lens = Lens((3, 2), (2.0, 2.0), (1.0, 0.5), "radtan", (-0.1, 0.02, 0.001, 0.0))
    assert picture_of(View.from_lenses(lens, lens, np.eye(4))) == NUMBERS.tolist()


def test_a_camera_beside_sees_near_things_shifted_and_far_ones_not():
    lens = Lens((3, 2), (2.0, 2.0), (1.0, 0.5))
    beside = np.eye(4)
    beside[0, 3] = 1.0  # what is at x is at x + 1 m for the other: focal length 2, at 2 m: one pixel
    assert picture_of(View.from_lenses(lens, lens, beside)) == NUMBERS.tolist()
    assert picture_of(View.from_lenses(lens, lens, beside, depth_m=2.0)) == [[-1, 0, 1], [-1, 3, 4]]


def test_a_view_is_cropped_as_its_picture_is():
    # The view is twice as wide as the sensor; a square image shows its middle.
    moved = np.array([[1.0, 0, 2], [0, 1, 0], [0, 0, 1]])
    table = View.from_homography(moved, (2, 3), (2, 6)).registration((2, 2), "crop").as_table()
    assert table.tolist() == [[0, 1, -1], [2, 3, -1]]


def test_hot_pixels_fall_nowhere_and_add_up():
    first, second = np.zeros((2, 3), np.bool_), np.zeros((2, 3), np.bool_)
    first[0, 1] = second[1, 2] = True
    view = View.of_sensor((2, 3)).without(first).without(second).rotated(180)
    assert picture_of(view) == [[-1, 4, 3], [2, -1, 0]]
    assert isinstance(view.registration((2, 3), "crop").table, FullMap)


def test_a_mask_for_another_sensor_is_refused():
    with pytest.raises(InputError, match="expected a mask for the sensor of 3x2, got one for 2x3"):
        View.of_sensor((2, 3)).without(np.zeros((3, 2), np.bool_))


def test_events_move_to_their_places_and_the_others_are_counted():
    moved = np.array([[1.0, 0, 1], [0, 1, 0], [0, 0, 1]])
    events = ViewedEvents(View.from_homography(moved, (2, 3), (2, 3)))
    batch = EventBatch(
        np.array([5, 6, 7], np.int64), np.array([0, 2, 1], np.uint16), np.array([1, 0, 0], np.uint16),
        np.array([1, 0, 0], np.uint8),
    )  # fmt: skip
    kept = events.apply(batch)
    assert (kept.t_us.tolist(), kept.x.tolist(), kept.y.tolist(), kept.p.tolist()) == (
        [5, 7], [1, 2], [1, 0], [1, 0],
    )  # fmt: skip
    assert (events.width, events.height, events.dropped) == (3, 2, 1)
    assert [kept.t_us.dtype, kept.x.dtype, kept.y.dtype, kept.p.dtype] == [
        np.int64, np.uint16, np.uint16, np.uint8,
    ]  # fmt: skip
