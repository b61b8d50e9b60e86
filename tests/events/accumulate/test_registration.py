from __future__ import annotations

import numpy as np
import pytest

from velora_edge.events.accumulate.representations import RegistrationMap
from velora_edge.events.kernels._frame_kernels import SeparableMap, find_cell


def test_crop_cuts_the_sides_off_evenly():
    table = RegistrationMap.from_fit((2, 4), (2, 2), "crop").as_table()
    assert table.tolist() == [[-1, 0, 1, -1], [-1, 2, 3, -1]]


def test_letterbox_leaves_margins():
    table = RegistrationMap.from_fit((2, 4), (4, 4), "letterbox").as_table()
    assert table.tolist() == [[4, 5, 6, 7], [8, 9, 10, 11]]


def test_stretch_fills_the_image():
    table = RegistrationMap.from_fit((2, 4), (4, 2), "stretch").as_table()
    assert table.tolist() == [[2, 2, 3, 3], [6, 6, 7, 7]]


def test_shrinking_sends_blocks_of_pixels_to_one():
    table = RegistrationMap.from_fit((4, 4), (2, 2)).as_table()
    assert table.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1], [2, 2, 3, 3], [2, 2, 3, 3]]


def test_a_fit_is_separable_and_its_cells_are_those_of_its_table():
    registration = RegistrationMap.from_fit((30, 7), (12, 9), "crop")
    full = RegistrationMap.from_table(registration.as_table(), (12, 9))
    assert isinstance(registration.table, SeparableMap)
    cells = [[find_cell(registration.table, y, x) for x in range(7)] for y in range(30)]
    assert cells == [[find_cell(full.table, y, x) for x in range(7)] for y in range(30)]
    assert cells == (registration.as_table() + 1).tolist()


def test_the_identity_is_the_fit_to_the_same_size():
    identity = RegistrationMap.identity((3, 4))
    assert identity.as_table().tolist() == RegistrationMap.from_fit((3, 4), (3, 4)).as_table().tolist()
    assert [find_cell(identity.table, 2, x) for x in range(4)] == [9, 10, 11, 12]


def test_masked_pixels_fall_nowhere_and_the_map_is_left_as_it_was():
    registration = RegistrationMap.from_fit((2, 2), (2, 2))
    mask = np.array([[False, True], [False, False]])
    assert registration.without(mask).as_table().tolist() == [[0, -1], [2, 3]]
    assert registration.as_table().tolist() == [[0, 1], [2, 3]]


def test_a_table_that_points_outside_the_image_is_refused():
    with pytest.raises(ValueError, match=r"indices below 4, got \(1, 2\) with entries up to 4"):
        RegistrationMap.from_table(np.array([[0, 4]], np.int32), (2, 2))


def test_any_negative_entry_means_nowhere():
    table = np.array([[-7, 3]], np.int32)
    assert RegistrationMap.from_table(table, (2, 2)).as_table().tolist() == [[-1, 3]]
